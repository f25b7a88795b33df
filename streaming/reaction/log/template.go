package log

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/mailgun/raymond/v2"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

// lines are the templates by kind of difference, nil for the default line.
type lines [result.Deleted + 1]*raymond.Template

var operations = [...]string{result.Added: "ADD", result.Updated: "UPDATE", result.Deleted: "DELETE"}

func compile(c Config) (lines, error) {
	var l lines
	for op, field := range map[result.Op]struct{ name, text string }{
		result.Added:   {"added", c.Added},
		result.Updated: {"updated", c.Updated},
		result.Deleted: {"deleted", c.Deleted},
	} {
		if field.text == "" {
			field.name, field.text = "template", c.Template
		}
		if field.text == "" {
			continue
		}
		t, err := raymond.Parse(field.text)
		if err != nil {
			return l, failure.TemplateInvalid.Errorf("%s: %w", field.name, err)
		}
		t.RegisterHelper("json", asJSON)
		// Helpers that do not exist show up only when a template is used.
		if _, err := render(t, view("", &result.Event{}, &result.Diff{Op: op})); err != nil {
			return l, failure.TemplateInvalid.Errorf("%s: %w", field.name, err)
		}
		l[op] = t
	}
	return l, nil
}

// append appends the line of one difference.
func (l lines) append(dst []byte, query string, e *result.Event, d *result.Diff) ([]byte, error) {
	t := l[d.Op]
	if t == nil {
		return appendDefault(dst, query, e, d), nil
	}
	line, err := render(t, view(query, e, d))
	if err != nil {
		return dst, failure.DeliveryRejected.Errorf("rendering the line of row %s: %w", d.Key, err)
	}
	return append(dst, line...), nil
}

func appendDefault(dst []byte, query string, e *result.Event, d *result.Diff) []byte {
	dst = append(dst, query...)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, e.Sequence, 10)
	dst = append(dst, ' ')
	dst = append(dst, d.Op.String()...)
	if d.Before != nil {
		dst = append(dst, ' ')
		dst = append(dst, result.RowJSON(e.Columns, result.Row{Values: d.Before})...)
	}
	if d.Before != nil && d.After != nil {
		dst = append(dst, " ->"...)
	}
	if d.After != nil {
		dst = append(dst, ' ')
		dst = append(dst, result.RowJSON(e.Columns, result.Row{Values: d.After})...)
	}
	return dst
}

// render runs a template. The library panics where a template asks for something that is not there.
func render(t *raymond.Template, view map[string]any) (line string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return t.Exec(view)
}

// view is what a template sees of a difference.
func view(query string, e *result.Event, d *result.Diff) map[string]any {
	return map[string]any{
		"query_name": raymond.SafeString(query),
		"operation":  operations[d.Op],
		"before":     rowView(e.Columns, d.Before),
		"after":      rowView(e.Columns, d.After),
		"sequence":   e.Sequence,
		"position":   raymond.SafeString(e.Position),
		"source":     raymond.SafeString(e.Source),
		"timestamp":  e.CommitTime.UTC().Format(time.RFC3339Nano),
		"key":        d.Key.String(),
		"snapshot":   e.Snapshot,
	}
}

func rowView(columns []string, values []graph.Value) map[string]any {
	if values == nil {
		return nil
	}
	row := make(map[string]any, len(columns))
	for i, name := range columns {
		row[name] = valueView(values[i])
	}
	return row
}

// valueView turns a value into what the template library walks through. Text is marked as safe, since a line is no HTML;
// whatever is not text, truth, number, list or map is shown as its JSON is.
func valueView(v graph.Value) any {
	switch v.Kind() {
	case graph.KindNull:
		return nil
	case graph.KindBool:
		return v.AsBool()
	case graph.KindInt:
		return v.AsInt()
	case graph.KindString:
		return raymond.SafeString(v.AsString())
	case graph.KindList:
		items := make([]any, len(v.AsList()))
		for i, item := range v.AsList() {
			items[i] = valueView(item)
		}
		return items
	case graph.KindMap:
		return rowView(v.AsMap().Keys, v.AsMap().Values)
	case graph.KindNode, graph.KindRelationship:
		e := v.AsElement()
		if e.Shape == nil {
			return map[string]any{}
		}
		return rowView(e.Shape.Names(), e.Values)
	}
	text := string(graph.AppendJSON(nil, v))
	if unquoted, err := strconv.Unquote(text); err == nil {
		return raymond.SafeString(unquoted)
	}
	return number(text)
}

// number is a number in its exact decimal form.
type number string

// asJSON is the helper {{json x}}.
func asJSON(v any) raymond.SafeString { return raymond.SafeString(appendJSON(nil, v)) }

func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case number:
		return append(dst, v...)
	case string:
		return graph.AppendJSONString(dst, v)
	case raymond.SafeString:
		return graph.AppendJSONString(dst, string(v))
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item)
		}
		return append(dst, ']')
	case map[string]any:
		if v == nil {
			break
		}
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = graph.AppendJSONString(dst, name)
			dst = append(dst, ':')
			dst = appendJSON(dst, v[name])
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}
