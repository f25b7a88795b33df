package parser_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// requireStable prints a tree and parses what was printed: it must be the same tree, and be printed in the same way.
func requireStable(t *testing.T, q *ast.Query) {
	text := ast.Format(q)
	again, err := parser.Parse(text)
	require.NoError(t, err, "printed:\n%s", text)
	require.Equal(t, text, ast.Format(again))
	require.Equal(t, dump(q), dump(again), "printed:\n%s", text)
}

// dump writes everything in a tree but where it stood in the text.
func dump(tree any) string {
	var b strings.Builder
	dumpValue(&b, reflect.ValueOf(tree))
	return b.String()
}

func dumpValue(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		dumpValue(b, v.Elem())
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			dumpValue(b, v.Index(i))
			b.WriteByte(' ')
		}
		b.WriteByte(']')
	case reflect.Struct:
		if value, ok := v.Interface().(graph.Value); ok {
			fmt.Fprintf(b, "%s %s", value.Kind(), value)
			return
		}
		b.WriteString(v.Type().Name() + "{")
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.Type == reflect.TypeFor[token.Range]() || field.Name == "Text" && v.Type() != reflect.TypeFor[ast.Name]() {
				continue
			}
			b.WriteString(field.Name + ":")
			dumpValue(b, v.Field(i))
			b.WriteByte(' ')
		}
		b.WriteByte('}')
	default:
		fmt.Fprintf(b, "%#v", v.Interface())
	}
}
