package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

const (
	fileFlag = "config"
	fileEnv  = "PERDURE_CONFIG"
)

// setting is one field of a configuration struct, under all its names.
type setting struct {
	key, flag, env, doc, standard string
	kind                          reflect.Kind
}

// settingsOf lists the fields of the struct that into points to, those of embedded structs included.
func settingsOf(t reflect.Type) []setting {
	var all []setting
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			all = append(all, settingsOf(f.Type)...)
			continue
		}
		all = append(all, setting{
			key: f.Tag.Get("json"), flag: f.Tag.Get("flag"), env: f.Tag.Get("env"), doc: f.Tag.Get("doc"),
			standard: f.Tag.Get("default"), kind: f.Type.Kind(),
		})
	}
	return all
}

// AddFlags gives flags a flag for each field of the struct that into points to, and --config.
func AddFlags(flags *pflag.FlagSet, into any) {
	for _, s := range settingsOf(reflect.TypeOf(into).Elem()) {
		usage := s.doc + " (" + s.env + ")"
		switch s.kind {
		case reflect.Bool:
			standard, _ := strconv.ParseBool(s.standard) // no default is false
			flags.Bool(s.flag, standard, usage)
		case reflect.Int:
			standard, _ := strconv.Atoi(s.standard) // a test loads every struct with its defaults
			flags.Int(s.flag, standard, usage)
		case reflect.Float64:
			standard, _ := strconv.ParseFloat(s.standard, 64)
			flags.Float64(s.flag, standard, usage)
		default:
			flags.String(s.flag, s.standard, usage)
		}
	}
	flags.String(fileFlag, "", "YAML file with settings, named as the flags but in camelCase ("+fileEnv+")")
}

// Load fills the struct that into points to from flags, the environment, the file and the defaults, in this order of
// preference. The error is one ConfigInvalid failure with all problems, each with where it comes from.
func Load(flags *pflag.FlagSet, lookupEnv func(string) (string, bool), into any) error {
	var problems []string
	merged := make(map[string]json.RawMessage)
	add := func(origin string, values map[string]json.RawMessage, err error) {
		if err == nil {
			err = check(values, into)
		}
		if err != nil {
			problems = append(problems, origin+": "+err.Error())
		}
		maps.Copy(merged, values)
	}

	settings := settingsOf(reflect.TypeOf(into).Elem())
	if file := fileName(flags, lookupEnv); file != "" {
		values, err := readFile(file)
		add(file, values, err)
	}
	env := make(map[string]json.RawMessage)
	for _, s := range settings {
		if text, ok := lookupEnv(s.env); ok && text != "" {
			env[s.key] = s.json(text)
		}
	}
	add("environment", env, nil)
	set := make(map[string]json.RawMessage)
	for _, s := range settings {
		if f := flags.Lookup(s.flag); f != nil && f.Changed {
			set[s.key] = s.json(f.Value.String())
		}
	}
	add("flags", set, nil)

	if len(problems) == 0 {
		if err := decode(merged, into); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) > 0 {
		return failure.ConfigInvalid.Errorf("%s", strings.Join(problems, "\n")).
			WithFix("Correct the settings named; --help lists them all.")
	}
	return nil
}

func fileName(flags *pflag.FlagSet, lookupEnv func(string) (string, bool)) string {
	if f := flags.Lookup(fileFlag); f != nil && f.Changed {
		return f.Value.String()
	}
	file, _ := lookupEnv(fileEnv)
	return file
}

func readFile(file string) (map[string]json.RawMessage, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("the file must hold settings as key: value: %w", err)
	}
	return values, nil
}

// json returns a text from a flag or the environment as the field's decoder wants it. What does not fit the field stays
// a string, which the decoder then refuses by name.
func (s setting) json(text string) json.RawMessage {
	switch s.kind {
	case reflect.Bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return json.RawMessage(strconv.FormatBool(b))
		}
	case reflect.Int:
		if n, err := strconv.Atoi(text); err == nil {
			return json.RawMessage(strconv.Itoa(n))
		}
	case reflect.Float64:
		if json.Valid([]byte(text)) { // is a number or refused by name
			return json.RawMessage(text)
		}
	case reflect.Struct: // where a secret is
		reference, _ := json.Marshal(map[string]string{"$secret": text})
		return reference
	}
	quoted, _ := json.Marshal(text) // cannot fail for a string
	return quoted
}

// check decodes the values of one origin alone, so that problems are told with where they come from. Rules between
// fields wait for the whole.
func check(values map[string]json.RawMessage, into any) error {
	scratch := reflect.New(withoutMethods(reflect.TypeOf(into).Elem()))
	return decode(values, scratch.Interface())
}

// withoutMethods returns the struct type with the same fields and no Validate.
func withoutMethods(t reflect.Type) reflect.Type {
	fields := make([]reflect.StructField, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for j := range f.Type.NumField() {
				fields = append(fields, f.Type.Field(j))
			}
			continue
		}
		fields = append(fields, f)
	}
	for i := range fields {
		fields[i].Offset, fields[i].Index = 0, nil
	}
	return reflect.StructOf(fields)
}

func decode(values map[string]json.RawMessage, into any) error {
	raw, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("putting settings together: %w", err)
	}
	return component.DecodeConfig(raw, into)
}
