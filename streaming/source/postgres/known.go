package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// What begins anew, such as provisioning or a snapshot, goes by the names in the spec where nothing else is known. A table
// that was read already is known by its OID, so that it may be renamed, and others be dropped, before anybody adapts the
// spec. That holds for tables of which the spec says what it said then: what it says anew may be wrong.

// adapted returns the source with a spec that is adapted to what became of the tables that were read, without those that
// cannot be read any more. Where none is left, the spec stays as it is, and is wrong.
func (s *Source) adapted(ctx context.Context, conn *pgx.Conn) (*follower, error) {
	var known []layout
	if s.settings.Learned != nil {
		learned, err := s.settings.Learned(ctx)
		if err != nil {
			return nil, err
		}
		if known, err = decodeLayouts(learned); err != nil {
			return nil, err
		}
	}
	known = slices.DeleteFunc(known, func(l layout) bool { return l.Asked == "" || l.Asked != s.config.asked(l.Spec) })
	f := &follower{Source: *s, known: known, now: make(map[tableName]*Table)}
	if err := f.follow(ctx, conn, s.config); err != nil {
		return nil, err
	}
	if len(f.config.Tables) == 0 {
		return &follower{Source: *s}, nil
	}
	return f, nil
}

// asked stands for all that the spec says of a table.
func (c *Config) asked(spec string) string {
	table := slices.IndexFunc(c.Tables, func(t Table) bool { return t.Name == spec })
	name, err := parseTableName(spec)
	if table < 0 || err != nil {
		return ""
	}
	says := []any{c.Tables[table]}
	for _, r := range c.Relationships {
		if owner, err := parseTableName(r.Table); err == nil && owner == name {
			says = append(says, r)
		}
	}
	data, _ := json.Marshal(says) // has nothing that cannot be encoded
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// renewAsked returns what is known with what the spec says now, which does not depend on a place in the stream.
func renewAsked(known, now []layout) (renewed []layout, other bool) {
	renewed = slices.Clone(known)
	for i := range renewed {
		l := &renewed[i]
		if is := labelled(now, l.Label); is != nil && is.Spec == l.Spec && is.Asked != l.Asked {
			l.Asked, other = is.Asked, true
		}
	}
	return renewed, other
}

// missingWayOut says what to do about a table that the spec names and that cannot be read any more.
const missingWayOut = "take it out of the spec, or make it what it was, then send the spec with the signal reconfigure"

// missingTables says for people what became of tables that are not read any more.
func missingTables(known []layout) string {
	var texts []string
	for _, l := range known {
		if l.Missing != "" {
			texts = append(texts, l.Spec+" is not read: "+l.Missing)
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return strings.Join(texts, "; ") + "; " + missingWayOut
}

// renamedTables says for people which tables have another name than in the spec.
func renamedTables(known []layout) string {
	var texts []string
	for _, l := range known {
		if name, err := parseTableName(l.Spec); err == nil && l.Missing == "" && l.Name != name.String() {
			texts = append(texts, fmt.Sprintf("%s is %s by now: %s", l.Spec, l.Name, renameWayOut(l.Label)))
		}
	}
	return strings.Join(texts, "; ")
}

func renameWayOut(label string) string {
	return "name it so in the spec, with the label or type " + label + ", then send the spec with the signal reconfigure"
}

// gone is the error of who needs a table that cannot be read any more.
func (l *layout) gone() error {
	return failure.TableMissing.Errorf("reading %s as %s: %s", l.Spec, l.Label, l.Missing).WithDetail("table", l.Spec)
}
