package postgres

import (
	"encoding/json"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/source"
)

// Kind is the name of this source in specs.
const Kind = "postgres"

// Factory makes Postgres sources.
type Factory struct{}

// Kind implements source.Factory.
func (Factory) Kind() string { return Kind }

// New implements source.Factory.
func (Factory) New(config json.RawMessage, settings source.Settings) (source.Source, error) {
	s := &Source{settings: settings, log: settings.Log}
	if err := component.DecodeConfig(config, &s.config); err != nil {
		return nil, err
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.settings.Secret == nil {
		s.settings.Secret = component.ResolveSecret
	}
	if s.settings.Made == nil {
		s.settings.Made = &kept{}
	}
	name := defaultName(settings.Instance, settings.Name)
	if s.slot = s.config.Slot; s.slot == "" {
		s.slot = name
	}
	if s.publication = s.config.Publication; s.publication == "" {
		s.publication = name
	}
	return s, nil
}

// Source reads one Postgres database. It holds no connection outside its methods.
type Source struct {
	config            Config
	settings          source.Settings
	slot, publication string
	log               *zap.Logger
	// lenient lets tables pass whose replica identity lacks the key: the server refuses most changes of their rows by itself,
	// and the stream ends with the first one that it sends without a key.
	lenient bool
}

var (
	_ source.Factory     = Factory{}
	_ source.Source      = (*Source)(nil)
	_ source.Snapshotter = (*Source)(nil)
	_ source.Retirer     = (*Source)(nil)
)

// Describe implements source.Source.
func (s *Source) Describe() map[string]string {
	tables := make([]string, len(s.config.Tables))
	for i, t := range s.config.Tables {
		tables[i] = t.Name
	}
	facts := map[string]string{
		"slot":                s.slot,
		"publication":         s.publication,
		"tables":              strings.Join(tables, ", "),
		"snapshotParallelism": strconv.Itoa(s.config.SnapshotParallelism),
	}
	if s.config.URL.IsZero() {
		facts["database"], facts["user"] = s.config.Database, s.config.User
	}
	return facts
}
