package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

// ownersOfLogs says by the beginning of a stream's name of which kind the component is that it belongs to.
var ownersOfLogs = map[string]component.Kind{
	"CHG": component.Source, "STAGED": component.Source, "REJECTS": component.Source,
	"RES": component.Query, "BOOT": component.Query, "OBJ_CKPT": component.Query,
	"LETTERS": component.Reaction,
}

// ownersOfKeys says the same of the keys of buckets, and which part of a key is the component's name; the first is that of its
// instance. What a source made in the system behind it may be kept on purpose, so the bucket of that is none of them.
var ownersOfKeys = map[string]struct {
	kind component.Kind
	name int
}{
	positionsBucket: {component.Source, 1}, subscriptionsBucket: {component.Query, 2}, bootstrapBucket: {component.Query, 1},
	queriesBucket: {component.Query, 1}, checkpointsBucket: {component.Query, 1}, deliveriesBucket: {component.Reaction, 1},
}

// Leftovers lists what is on the stream server of components that do not exist any more, because somebody ended their
// workflows without deleting them, and changes nothing. Further buckets are those whose keys begin with the id of a component
// or of a bootstrap.
func Leftovers(
	ctx context.Context, conn *stream.Conn, further []string, exists func(context.Context, component.ID) (bool, error),
) (checks []Check, err error) {
	names, err := conn.Names(ctx)
	if err != nil {
		return nil, err
	}
	left := make(map[component.ID]*leftover)
	of := func(id component.ID) *leftover {
		if left[id] == nil {
			left[id] = new(leftover)
		}
		return left[id]
	}
	for _, name := range names {
		if id, ok := ownerOfLog(name); ok {
			of(id).add("stream "+name, "nats stream rm -f "+name)
		}
		bucket, ok := strings.CutPrefix(name, "KV_")
		if owner := ownersOfKeys[bucket]; !ok || owner.kind == "" && bucket != "fences" && !slices.Contains(further, bucket) {
			continue
		}
		b, err := conn.Bucket(ctx, stream.BucketOptions{Name: bucket})
		if err != nil {
			return nil, err
		}
		keys, err := b.Keys(ctx, "")
		if err != nil {
			return nil, fmt.Errorf("listing bucket %s: %w", bucket, err)
		}
		for _, key := range keys {
			if id, prefix, ok := ownerOfKey(bucket, key); ok {
				subject := "$KV." + bucket + "." + prefix
				if prefix != key {
					subject += ".>"
				}
				of(id).add("keys of bucket "+bucket, "nats stream purge -f KV_"+bucket+" --subject '"+subject+"'")
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(left), func(a, b component.ID) int { return strings.Compare(a.String(), b.String()) }) {
		there, err := exists(ctx, id)
		if err != nil {
			return nil, err
		}
		if !there {
			checks = append(checks, left[id].check(id))
		}
	}
	if checks == nil {
		checks = []Check{{Name: "leftover", OK: true, Found: "none"}}
	}
	return checks, nil
}

// ownerOfLog returns the component that a stream belongs to, if it is one of ours.
func ownerOfLog(name string) (component.ID, bool) {
	kind, rest, _ := strings.Cut(name, "_")
	if kind == "OBJ" {
		var objects string
		objects, rest, _ = strings.Cut(rest, "_")
		kind += "_" + objects
	}
	part := strings.Split(rest, "_")
	if ownersOfLogs[kind] == "" || len(part) < 2 || !component.ValidName(part[0]) || !component.ValidName(part[1]) {
		return component.ID{}, false
	}
	return component.ID{Kind: ownersOfLogs[kind], Instance: part[0], Name: part[1]}, true
}

// ownerOfKey returns the component that a key belongs to, and the part of the key that says so.
func ownerOfKey(bucket, key string) (id component.ID, prefix string, ok bool) {
	part := strings.Split(key, ".")
	kind, name := ownersOfKeys[bucket].kind, ownersOfKeys[bucket].name
	instance := 0
	if kind == "" { // the key begins with an id
		kind, instance, name = component.Kind(part[0]), 1, 2
		if kind == "bootstrap" {
			kind = component.Query
		}
	}
	if len(part) <= name {
		return component.ID{}, "", false
	}
	id = component.ID{Kind: kind, Instance: part[instance], Name: part[name]}
	_, err := component.ParseID(id.String())
	return id, strings.Join(part[:name+1], "."), err == nil
}

// leftover is what is left of one component.
type leftover struct{ what, commands []string }

func (l *leftover) add(what, command string) {
	if !slices.Contains(l.what, what) {
		l.what = append(l.what, what)
	}
	if !slices.Contains(l.commands, command) {
		l.commands = append(l.commands, command)
	}
}

func (l *leftover) check(id component.ID) Check {
	return Check{
		Name: "leftover", Object: id.String(), Component: id.String(), Severity: source.Warning,
		Found: strings.Join(l.what, ", ") + ", of a component without a workflow", Wanted: "only what a component uses",
		Fix: "Start " + id.String() + " again to go on with it, or remove what it left with these commands.", Commands: l.commands,
	}
}
