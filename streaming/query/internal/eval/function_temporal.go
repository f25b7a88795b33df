package eval

import (
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/temporal"
)

// temporalKinds are the kinds of dates and times by the functions that make them.
var temporalKinds = map[string]graph.Kind{
	"date": graph.KindDate, "localtime": graph.KindLocalTime, "time": graph.KindTime,
	"localdatetime": graph.KindLocalDateTime, "datetime": graph.KindDateTime,
}

var temporalFunctions = func() map[string]function {
	all := map[string]function{
		"timestamp": {volatile: true, call: func(env *Env, _ []graph.Value) (graph.Value, error) {
			return graph.Int(env.Now.UnixMilli()), nil
		}},
		"datetime.fromepoch":       {least: 2, most: 2, call: fromEpoch},
		"datetime.fromepochmillis": {least: 1, most: 1, call: fromEpochMillis},
		"duration":                 {least: 1, most: 1, call: makeDuration},
		"duration.between":         between(temporal.All),
		"duration.inmonths":        between(temporal.Months),
		"duration.indays":          between(temporal.Days),
		"duration.inseconds":       between(temporal.Seconds),
	}
	for name, kind := range temporalKinds {
		all[name] = function{most: 1, volatile: true, call: makeTemporal(kind)}
		all[name+".truncate"] = function{least: 1, most: 3, volatile: true, call: truncate(kind)}
		for _, clock := range []string{".transaction", ".statement", ".realtime"} {
			all[name+clock] = function{most: 1, volatile: true, call: now(kind)}
		}
	}
	return all
}()

// asksForTime reports whether a call of a temporal function depends on the time that it is, although it has arguments.
func asksForTime(c *ast.Call) bool {
	name := strings.ToLower(c.Name)
	base, what, _ := strings.Cut(name, ".")
	kind, ok := temporalKinds[base]
	switch {
	case !ok:
		return false
	case what == "truncate":
		return len(c.Args) == 1
	case what != "":
		return true // another name of the clock
	}
	// The offset of a named zone depends on the day where there is none.
	return kind == graph.KindTime || mayNameZone(c.Args[0])
}

// mayNameZone reports whether an argument may be a map with nothing but a time zone, which asks for the time there. The
// properties of elements are not thought to hold such maps.
func mayNameZone(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.MapLiteral:
		return len(e.Keys) == 1 && e.Keys[0].Text == "timezone"
	case *ast.Literal, *ast.Property, *ast.Call, *ast.Binary:
		return false
	}
	return true
}

func temporalError(v graph.Value, err error) (graph.Value, error) {
	if err != nil {
		return graph.Null, failed(token.InvalidArgumentValue, "%v", err)
	}
	return v, nil
}

func makeTemporal(kind graph.Kind) func(*Env, []graph.Value) (graph.Value, error) {
	return func(env *Env, args []graph.Value) (graph.Value, error) {
		if len(args) == 0 {
			return temporal.Now(kind, env.Now, nil), nil
		}
		switch v := args[0]; v.Kind() {
		case graph.KindString:
			return temporalError(temporal.Parse(kind, v.AsString(), env.Now))
		case graph.KindMap:
			if m := v.AsMap(); len(m.Keys) == 1 && m.Keys[0] == "timezone" {
				return now(kind)(env, m.Values)
			}
			return temporalError(temporal.FromMap(kind, v.AsMap(), env.Now))
		case graph.KindDate, graph.KindLocalTime, graph.KindTime, graph.KindLocalDateTime, graph.KindDateTime:
			return temporalError(temporal.Convert(kind, v))
		default:
			return graph.Null, wrongType("a "+kind.String()+" is made of a string, a map or another date or time", v)
		}
	}
}

func now(kind graph.Kind) func(*Env, []graph.Value) (graph.Value, error) {
	return func(env *Env, args []graph.Value) (graph.Value, error) {
		var zone *time.Location
		if len(args) > 0 {
			if args[0].Kind() != graph.KindString {
				return graph.Null, wrongType("a zone is named by a string", args[0])
			}
			var err error
			if zone, err = temporal.Zone(args[0].AsString()); err != nil {
				return temporalError(graph.Null, err)
			}
		}
		return temporal.Now(kind, env.Now, zone), nil
	}
}

func truncate(kind graph.Kind) func(*Env, []graph.Value) (graph.Value, error) {
	return func(env *Env, args []graph.Value) (graph.Value, error) {
		if args[0].Kind() != graph.KindString {
			return graph.Null, wrongType("truncate wants its unit as a string", args[0])
		}
		v := temporal.Now(graph.KindDateTime, env.Now, nil)
		if len(args) > 1 {
			v = args[1]
		}
		var m *graph.Map
		if len(args) > 2 {
			if args[2].Kind() != graph.KindMap {
				return graph.Null, wrongType("truncate wants the parts to set as a map", args[2])
			}
			m = args[2].AsMap()
		}
		return temporalError(temporal.Truncate(kind, args[0].AsString(), v, m, env.Now))
	}
}

func fromEpoch(_ *Env, args []graph.Value) (graph.Value, error) {
	for _, v := range args {
		if v.Kind() != graph.KindInt {
			return graph.Null, wrongType("datetime.fromepoch wants integers", v)
		}
	}
	return temporalError(temporal.Instant(args[0].AsInt(), args[1].AsInt(), nil))
}

func fromEpochMillis(_ *Env, args []graph.Value) (graph.Value, error) {
	if args[0].Kind() != graph.KindInt {
		return graph.Null, wrongType("datetime.fromepochmillis wants an integer", args[0])
	}
	ms := args[0].AsInt()
	return temporalError(temporal.Instant(ms/1000, ms%1000*1e6, nil))
}

func makeDuration(_ *Env, args []graph.Value) (graph.Value, error) {
	switch v := args[0]; v.Kind() {
	case graph.KindString:
		return temporalError(temporal.ParseDuration(v.AsString()))
	case graph.KindMap:
		return temporalError(temporal.DurationFromMap(v.AsMap()))
	case graph.KindDuration:
		return v, nil
	default:
		return graph.Null, wrongType("a duration is made of a string or a map", v)
	}
}

func between(unit temporal.Unit) function {
	return function{least: 2, most: 2, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
		v, err := temporal.Between(args[0], args[1], unit)
		if err != nil {
			return graph.Null, failed(token.InvalidArgumentType, "%v", err)
		}
		return v, nil
	}}
}

// temporalProperty returns a part of a date, time or duration; ok is false for a value of another kind.
func temporalProperty(v graph.Value, name string) (part graph.Value, ok bool, err error) {
	if !isTemporal(v) {
		return graph.Null, false, nil
	}
	if part, ok := temporal.Property(v, name); ok {
		return part, true, nil
	}
	return graph.Null, true, failed(token.InvalidArgumentValue, "a %s has no part %s", v.Kind(), name)
}

func isTemporal(v graph.Value) bool {
	return v.Kind() >= graph.KindDate && v.Kind() <= graph.KindDuration
}

// temporalArithmetic is a operator b where one of them is a date, time or duration; ok is false if none is, or if it
// makes no sense.
func temporalArithmetic(op string, a, b graph.Value) (v graph.Value, ok bool, err error) {
	aDuration, bDuration := a.Kind() == graph.KindDuration, b.Kind() == graph.KindDuration
	switch {
	case !aDuration && !bDuration:
		return graph.Null, false, nil
	case (op == "+" || op == "-") && aDuration && bDuration:
		v, err = temporal.AddDurations(a.AsDuration(), b.AsDuration(), signOf(op))
	case (op == "+" || op == "-") && bDuration && isTemporal(a):
		v, err = temporal.Add(a, b.AsDuration(), signOf(op))
	case op == "+" && aDuration && isTemporal(b):
		v, err = temporal.Add(b, a.AsDuration(), 1)
	case (op == "*" || op == "/") && aDuration && b.IsNumber():
		v, err = temporal.Scale(a.AsDuration(), b, op == "/")
	case op == "*" && bDuration && a.IsNumber():
		v, err = temporal.Scale(b.AsDuration(), a, false)
	default:
		return graph.Null, false, nil
	}
	v, err = temporalError(v, err)
	return v, true, err
}

func signOf(op string) int64 {
	if op == "-" {
		return -1
	}
	return 1
}
