package graph

import (
	"strings"
	"time"
)

// isNamed reports whether zone can be written by its name alone: a zone of the tz database and not a fixed offset that
// carries the name of one.
func isNamed(name string, zone *time.Location, sec int64, offset int) bool {
	if name == "" || name[0] == '+' || name[0] == '-' {
		return false
	}
	known, err := Zone(name)
	if err != nil || known == zone {
		return err == nil
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
