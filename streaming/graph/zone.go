package graph

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// zoneinfo is the tz database as it comes with Go (lib/time/zoneinfo.zip, in the public domain). It is part of the
// program and not that of the machine, so that the same changes give the same results wherever a query is evaluated.
//
//go:generate sh -c "cp \"$(go env GOROOT)/lib/time/zoneinfo.zip\" ."
//go:embed zoneinfo.zip
var zoneinfo []byte

var zoneFiles = sync.OnceValues(func() (*zip.Reader, error) {
	return zip.NewReader(bytes.NewReader(zoneinfo), int64(len(zoneinfo)))
})

// namedZones remembers the zones that were asked for. It is a memo of a pure function and bounded by the size of the tz
// database: unknown names are not kept.
var namedZones sync.Map // string -> *time.Location

// Zone returns a zone of the tz database, such as Europe/Stockholm; each name always gives the same pointer. It may be
// called from several goroutines.
func Zone(name string) (*time.Location, error) {
	if name == "UTC" {
		return time.UTC, nil
	}
	if zone, ok := namedZones.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := readZone(strings.Clone(name))
	if err != nil {
		return nil, fmt.Errorf("%q is no zone of the tz database", name)
	}
	known, _ := namedZones.LoadOrStore(zone.String(), zone)
	return known.(*time.Location), nil
}

func readZone(name string) (*time.Location, error) {
	files, err := zoneFiles()
	if err != nil {
		return nil, err
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData(name, data)
}
