package eval

import (
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// scalarFunctions are about values of any kind, nodes, relationships and paths.
var scalarFunctions = map[string]function{
	"coalesce":   {least: 1, most: -1, nulls: true}, // see coalesce
	"exists":     {least: 1, most: 1, nulls: true, call: exists},
	"nullif":     {least: 2, most: 2, nulls: true, call: nullIf},
	"properties": {least: 1, most: 1, call: properties},
	"id":         {least: 1, most: 1, call: elementID},
	"elementid":  {least: 1, most: 1, call: elementID},
	"type":       {least: 1, most: 1, call: typeOf},
	"labels":     {least: 1, most: 1, call: labelsOf},
	"keys":       {least: 1, most: 1, call: keysOf},
	"nodes":      {least: 1, most: 1, call: nodesOf},
	"length":     {least: 1, most: 1, call: lengthOf},
	"rand":       {volatile: true, call: random},
	"randomuuid": {volatile: true, call: randomUUID},

	"relationships": {least: 1, most: 1, call: relationshipsOf},
}

func exists(_ *Env, args []graph.Value) (graph.Value, error) {
	return graph.Bool(!args[0].IsNull()), nil
}

func nullIf(_ *Env, args []graph.Value) (graph.Value, error) {
	if e := graph.Equal(args[0], args[1]); !e.IsNull() && e.AsBool() {
		return graph.Null, nil
	}
	return args[0], nil
}

func properties(_ *Env, args []graph.Value) (graph.Value, error) {
	m, ok := propertiesOf(args[0])
	if !ok {
		return graph.Null, wrongType("properties wants a node, a relationship or a map", args[0])
	}
	return graph.MapOf(m), nil
}

func elementID(_ *Env, args []graph.Value) (graph.Value, error) {
	switch args[0].Kind() {
	case graph.KindNode, graph.KindRelationship:
		return graph.String(string(args[0].AsElement().ID)), nil
	}
	return graph.Null, wrongType("elementId wants a node or a relationship", args[0])
}

func typeOf(_ *Env, args []graph.Value) (graph.Value, error) {
	if args[0].Kind() != graph.KindRelationship {
		return graph.Null, failed(token.InvalidArgumentValue, "type wants a relationship, got %s %s", article(args[0].Kind()), args[0].Kind())
	}
	return graph.String(args[0].AsElement().Labels[0]), nil
}

func labelsOf(_ *Env, args []graph.Value) (graph.Value, error) {
	if args[0].Kind() != graph.KindNode {
		return graph.Null, failed(token.InvalidArgumentValue, "labels wants a node, got %s %s", article(args[0].Kind()), args[0].Kind())
	}
	return stringList(args[0].AsElement().Labels), nil
}

func stringList(list []string) graph.Value {
	values := make([]graph.Value, len(list))
	for i, s := range list {
		values[i] = graph.String(s)
	}
	return graph.List(values)
}

func keysOf(_ *Env, args []graph.Value) (graph.Value, error) {
	m, ok := propertiesOf(args[0])
	if !ok {
		return graph.Null, wrongType("keys wants a node, a relationship or a map", args[0])
	}
	return stringList(m.Keys), nil
}

func path(what string, v graph.Value) (*graph.Path, error) {
	if v.Kind() != graph.KindPath {
		return nil, wrongType(what+" wants a path", v)
	}
	return v.AsPath(), nil
}

func nodesOf(_ *Env, args []graph.Value) (graph.Value, error) {
	p, err := path("nodes", args[0])
	if err != nil {
		return graph.Null, err
	}
	values := make([]graph.Value, len(p.Nodes))
	for i, n := range p.Nodes {
		values[i] = graph.NodeOf(n)
	}
	return graph.List(values), nil
}

func relationshipsOf(_ *Env, args []graph.Value) (graph.Value, error) {
	p, err := path("relationships", args[0])
	if err != nil {
		return graph.Null, err
	}
	values := make([]graph.Value, len(p.Relationships))
	for i, r := range p.Relationships {
		values[i] = graph.RelationshipOf(r)
	}
	return graph.List(values), nil
}

func lengthOf(_ *Env, args []graph.Value) (graph.Value, error) {
	p, err := path("length", args[0])
	if err != nil {
		return graph.Null, err
	}
	return graph.Int(int64(len(p.Relationships))), nil
}

var errNoRandom = failed(token.InvalidArgumentValue, "there are no random numbers here")

func random(env *Env, _ []graph.Value) (graph.Value, error) {
	if env.Random == nil {
		return graph.Null, errNoRandom
	}
	return graph.Float(env.Random.Float64()), nil
}

func randomUUID(env *Env, _ []graph.Value) (graph.Value, error) {
	if env.Random == nil {
		return graph.Null, errNoRandom
	}
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], env.Random.Uint64())
	binary.BigEndian.PutUint64(id[8:], env.Random.Uint64())
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // the variant of RFC 9562
	return graph.String(id.String()), nil
}
