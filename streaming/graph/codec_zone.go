package graph

import (
	"strings"
	"sync"
	"time"
)

// namedZones remembers the zones of the tz database that were asked for, as loading one reads a file. It is a memo of
// a pure function and bounded by the size of that database: unknown names are not kept.
var namedZones sync.Map // string -> *time.Location

// namedZone returns a zone of the tz database, or nil.
func namedZone(name string) *time.Location {
	if name == "" || name == "Local" {
		return nil
	}
	if zone, ok := namedZones.Load(name); ok {
		return zone.(*time.Location)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil
	}
	known, _ := namedZones.LoadOrStore(strings.Clone(name), zone)
	return known.(*time.Location)
}

// isNamed reports whether zone can be written by its name alone: a zone of the tz database and not a fixed offset that
// carries the name of one.
func isNamed(name string, zone *time.Location, sec int64, offset int) bool {
	if name == "" || name[0] == '+' || name[0] == '-' {
		return false
	}
	known := namedZone(name)
	if known == nil || known == zone {
		return known != nil
	}
	_, knownOffset := time.Unix(sec, 0).In(known).Zone()
	return knownOffset == offset
}

// fixedZone returns a zone of constant offset, the same one again while values in a row have the same.
func (r *reader) fixedZone(name string, offset int32) *time.Location {
	if r.zone == nil || r.zoneOffset != offset || r.zone.String() != name {
		r.zone, r.zoneOffset = time.FixedZone(strings.Clone(name), int(offset)), offset
	}
	return r.zone
}
