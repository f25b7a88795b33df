package component

import (
	"fmt"
	"reflect"
	"slices"
)

// ID returns the component's identity.
func (s SourceSpec) ID() ID { return ID{Source, InstanceOr(s.Instance), s.Name} }

// ID returns the component's identity.
func (s QuerySpec) ID() ID { return ID{Query, InstanceOr(s.Instance), s.Name} }

// ID returns the component's identity.
func (s ReactionSpec) ID() ID { return ID{Reaction, InstanceOr(s.Instance), s.Name} }

// InstanceOr returns the instance of a component: name, or the default one when it is empty.
func InstanceOr(name string) string {
	if name == "" {
		return DefaultInstance
	}
	return name
}

// ValidateSource checks what can be checked without knowing the source's kind.
func ValidateSource(s SourceSpec) error {
	p := &Problems{}
	s.Policy = s.Policy.WithDefaults()
	checkFields(&s, p)
	return p.Err()
}

// ValidateQuery checks everything but the text of the query.
func ValidateQuery(s QuerySpec) error {
	p := &Problems{}
	s.Policy = s.Policy.WithDefaults()
	checkFields(&s, p)
	return p.Err()
}

// ValidateReaction checks what can be checked without knowing the reaction's kind.
func ValidateReaction(s ReactionSpec) error {
	p := &Problems{}
	s.Policy, s.Delivery = s.Policy.WithDefaults(), s.Delivery.WithDefaults()
	checkFields(&s, p)
	return p.Err()
}

func checkFields(spec any, p *Problems) {
	v := reflect.ValueOf(spec).Elem()
	for _, f := range fieldsOf(v) {
		checkTags(f, p)
		if f.value.Kind() == reflect.Struct {
			checkFields(f.value.Addr().Interface(), p.At(f.name))
		}
	}
	validate(v, p)
}

// Validate implements Validator.
func (s *SourceSpec) Validate(p *Problems) { checkIdentity(s.Name, s.Instance, p) }

// Validate implements Validator.
func (s *QuerySpec) Validate(p *Problems) {
	checkIdentity(s.Name, s.Instance, p)
	checkNames("sources", s.Sources, p)
	for name := range s.Parameters {
		if name == "" {
			p.Addf("parameters", "a parameter has no name")
		}
	}
}

// Validate implements Validator.
func (s *ReactionSpec) Validate(p *Problems) {
	checkIdentity(s.Name, s.Instance, p)
	checkNames("queries", s.Queries, p)
}

// Validate implements Validator.
func (d *Delivery) Validate(p *Problems) {
	if d.Lanes > 1 && d.Unit != "row" {
		p.Addf("lanes", "must be 1 unless unit is row: events are delivered in the order of their transactions")
	}
}

// Validate implements Validator.
func (r *Retry) Validate(p *Problems) {
	if r.FirstMillis > r.MaxMillis {
		p.Addf("firstMillis", "must not be greater than maxMillis, which is %d", r.MaxMillis)
	}
}

const nameRule = "must be lower-case letters, digits and dashes, begin with a letter and be at most 63 long, is %q"

func checkIdentity(name, instance string, p *Problems) {
	if !ValidName(name) {
		p.Addf("name", nameRule, name)
	}
	if instance != "" && !ValidName(instance) {
		p.Addf("instance", nameRule, instance)
	}
}

func checkNames(path string, names []string, p *Problems) {
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !ValidName(name) {
			p.Addf(at, nameRule, name)
		} else if slices.Contains(names[:i], name) {
			p.Addf(at, "%s is named twice", name)
		}
	}
}
