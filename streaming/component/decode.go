package component

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/perdure/perdure/streaming/failure"
)

// DecodeConfig fills the struct that into points to from a JSON object and reports everything that is wrong with it at
// once, each problem with the path of its field, as one ConfigInvalid failure. An empty raw is an empty object.
//
// Field names are those of the json tags. Further tags say what a field may hold:
//
//	default:"10s"        the value of a field that is not given (lists and numbers in JSON, strings and durations bare)
//	required:"true"      must be given and not be empty
//	enum:"a,b"           the strings, or list items, that are allowed
//	minimum:"1"          least number
//	maximum:"65535"      greatest number
//
// Durations are written as "1m30s". A struct, at any depth, that implements Validator is asked for further problems.
func DecodeConfig(raw json.RawMessage, into any) error {
	p := &Problems{}
	v := reflect.ValueOf(into).Elem()
	if len(bytes.TrimSpace(raw)) == 0 || string(bytes.TrimSpace(raw)) == "null" {
		raw = json.RawMessage("{}")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		return failure.ConfigInvalid.Errorf("parsing JSON: %w", err)
	}
	decodeStruct(raw, v, p)
	return p.Err()
}

// DecodeYAML is DecodeConfig for YAML text, of which JSON is a part.
func DecodeYAML(text []byte, into any) error {
	raw, err := JSONOf(text)
	if err != nil {
		return err
	}
	return DecodeConfig(raw, into)
}

// JSONOf makes JSON of YAML text. JSON stays as it is.
func JSONOf(text []byte) (json.RawMessage, error) {
	if json.Valid(text) {
		return text, nil
	}
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("parsing YAML: %w", err)
	}
	return raw, nil
}

// Validator is implemented by config structs that have rules beyond those that tags can say. It is called with the
// defaults filled in, also when decoding found problems: a second problem of the same field is ignored.
type Validator interface {
	Validate(p *Problems)
}

// Problems collects what is wrong with a config, field by field. The zero value is ready to use.
type Problems struct {
	prefix string
	list   *[]problem
}

type problem struct{ path, text string }

// Addf adds a problem of the field at path, which is relative to the struct that is being validated. The first problem
// of a field is kept.
func (p *Problems) Addf(path, format string, args ...any) {
	if p.list == nil {
		p.list = new([]problem)
	}
	path = join(p.prefix, path)
	if !slices.ContainsFunc(*p.list, func(q problem) bool { return q.path == path }) {
		*p.list = append(*p.list, problem{path, fmt.Sprintf(format, args...)})
	}
}

// At returns a collector for the struct at path, which adds to the same list.
func (p *Problems) At(path string) *Problems {
	if p.list == nil {
		p.list = new([]problem)
	}
	return &Problems{prefix: join(p.prefix, path), list: p.list}
}

// maxProblems bounds the text of all problems of a config: what shows it cuts longer ones, and then nobody knows how many
// there are.
const maxProblems = 2800

// Err returns one ConfigInvalid failure that names all problems, up to a bound, or nil when there are none.
func (p *Problems) Err() error {
	if p.list == nil || len(*p.list) == 0 {
		return nil
	}
	lines, size := make([]string, 0, len(*p.list)), 0
	for i, q := range *p.list {
		line := q.text
		if q.path != "" {
			line = q.path + ": " + q.text
		}
		if size += len(line) + 2; i > 0 && size > maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(*p.list)-i))
			break
		}
		lines = append(lines, line)
	}
	return failure.ConfigInvalid.Errorf("%s", strings.Join(lines, "; "))
}

func join(prefix, path string) string {
	switch {
	case prefix == "":
		return path
	case path == "" || strings.HasPrefix(path, "["):
		return prefix + path
	}
	return prefix + "." + path
}

type field struct {
	name  string
	tag   reflect.StructTag
	value reflect.Value
}

// fieldsOf lists the fields of a struct as JSON sees them.
func fieldsOf(v reflect.Value) []field {
	var all []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			all = append(all, fieldsOf(v.Field(i))...)
		case f.IsExported():
			if name == "" {
				name = strings.ToLower(f.Name[:1]) + f.Name[1:]
			}
			all = append(all, field{name, f.Tag, v.Field(i)})
		}
	}
	return all
}

func decodeStruct(raw json.RawMessage, v reflect.Value, p *Problems) {
	given, err := object(raw, p)
	if err != nil {
		p.Addf("", "%s", err)
	}
	fields := fieldsOf(v)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
		value, ok := given[f.name]
		delete(given, f.name)
		if ok && string(value) != "null" {
			decodeValue(value, f.value, p.At(f.name))
		} else {
			setDefault(f, p)
		}
		checkTags(f, p)
	}
	unknown := make([]string, 0, len(given))
	for name := range given {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		if near := nearest(name, names); near != "" {
			p.Addf(name, "unknown field, did you mean %s?", near)
		} else {
			p.Addf(name, "unknown field; known are %s", strings.Join(names, ", "))
		}
	}
	validate(v, p)
}

func validate(v reflect.Value, p *Problems) {
	if v.CanAddr() {
		if checked, ok := v.Addr().Interface().(Validator); ok {
			checked.Validate(p)
		}
	}
}

// object splits a valid JSON object; encoding/json alone would let a duplicate key pass unnoticed.
func object(raw json.RawMessage, p *Problems) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, _ := dec.Token(); t != json.Delim('{') {
		return nil, fmt.Errorf("must be an object, is %s", kindOf(raw))
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if _, twice := members[name]; twice {
			p.Addf(name, "given twice")
		}
		members[name] = value
	}
	return members, nil
}

var (
	unmarshaler  = reflect.TypeFor[json.Unmarshaler]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	durationType = reflect.TypeFor[time.Duration]()
)

func decodeValue(raw json.RawMessage, v reflect.Value, p *Problems) {
	t := v.Type()
	switch {
	case t == rawType:
		v.SetBytes(slices.Clone(raw))
	case t == durationType:
		decodeDuration(raw, v, p)
	case reflect.PointerTo(t).Implements(unmarshaler):
		if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
			p.Addf("", "%s", err)
		}
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		decodeValue(raw, v.Elem(), p)
	case t.Kind() == reflect.Struct:
		decodeStruct(raw, v, p)
	case t.Kind() == reflect.Slice:
		decodeList(raw, v, p)
	case t.Kind() == reflect.Map:
		decodeMap(raw, v, p)
	default:
		if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
			p.Addf("", "%s", mismatch(raw, v, err))
		}
	}
}

func decodeDuration(raw json.RawMessage, v reflect.Value, p *Problems) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if d, err := time.ParseDuration(s); err == nil {
			v.SetInt(int64(d))
			return
		}
	}
	p.Addf("", `must be a duration such as "1m30s", is %s`, raw)
}

func decodeList(raw json.RawMessage, v reflect.Value, p *Problems) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		p.Addf("", "must be a list, is %s", kindOf(raw))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		decodeValue(item, v.Index(i), p.At(fmt.Sprintf("[%d]", i)))
	}
}

func decodeMap(raw json.RawMessage, v reflect.Value, p *Problems) {
	members, err := object(raw, p)
	if err != nil {
		p.Addf("", "%s", err)
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(members)))
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := reflect.New(v.Type().Elem()).Elem()
		decodeValue(members[name], value, p.At(name))
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), value)
	}
}

// mismatch says what is wrong in the user's words instead of Go's.
func mismatch(raw json.RawMessage, v reflect.Value, err error) string {
	want := "of another type"
	switch v.Kind() {
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		want = "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want = "a whole number from 0 on"
	case reflect.Float32, reflect.Float64:
		want = "a number"
	}
	var badType *json.UnmarshalTypeError
	if errors.As(err, &badType) {
		return fmt.Sprintf("must be %s, is %s", want, kindOf(raw))
	}
	return err.Error()
}

func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "empty"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "the number " + string(raw)
}

// setDefault gives a field that was left out its default, and the structs inside it theirs.
func setDefault(f field, p *Problems) {
	text, ok := f.tag.Lookup("default")
	switch {
	case ok && (f.value.Kind() == reflect.String || f.value.Type() == durationType):
		raw, _ := json.Marshal(text)
		decodeValue(raw, f.value, p.At(f.name))
	case ok:
		decodeValue(json.RawMessage(text), f.value, p.At(f.name))
	case f.value.Kind() == reflect.Struct && !reflect.PointerTo(f.value.Type()).Implements(unmarshaler):
		for _, inner := range fieldsOf(f.value) {
			setDefault(inner, p.At(f.name))
		}
	}
}

func checkTags(f field, p *Problems) {
	if f.tag.Get("required") == "true" && isEmpty(f.value) {
		p.Addf(f.name, "is required")
		return
	}
	if allowed := f.tag.Get("enum"); allowed != "" && !f.value.IsZero() {
		choice := strings.Split(allowed, ",")
		for i, s := range stringsOf(f.value) {
			if !slices.Contains(choice, s) {
				path := f.name
				if f.value.Kind() == reflect.Slice {
					path = fmt.Sprintf("%s[%d]", f.name, i)
				}
				p.Addf(path, "must be one of %s, is %q", strings.Join(choice, ", "), s)
			}
		}
	}
	checkRange(f, p)
}

func checkRange(f field, p *Problems) {
	number, ok := numberOf(f.value)
	if !ok {
		return
	}
	if least, err := strconv.ParseFloat(f.tag.Get("minimum"), 64); err == nil && number < least {
		p.Addf(f.name, "must be at least %s", f.tag.Get("minimum"))
	}
	if most, err := strconv.ParseFloat(f.tag.Get("maximum"), 64); err == nil && number > most {
		p.Addf(f.name, "must be at most %s", f.tag.Get("maximum"))
	}
}

func numberOf(v reflect.Value) (float64, bool) {
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

func stringsOf(v reflect.Value) []string {
	if v.Kind() == reflect.String {
		return []string{v.String()}
	}
	var all []string
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String {
		for i := range v.Len() {
			all = append(all, v.Index(i).String())
		}
	}
	return all
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}
