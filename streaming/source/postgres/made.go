package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// place is a database of a server.
type place struct {
	System   string `json:"system"` // identifier of the server, which its standbys share
	Database string `json:"database"`
}

// thing is a slot or a publication that the source has made, or was about to make.
type thing struct {
	place
	Slot        string `json:"slot,omitempty"` // either of the two
	Publication string `json:"publication,omitempty"`
	Making      bool   `json:"making,omitempty"` // the attempt to make it has not ended well, so far as is known
	Old         bool   `json:"old,omitempty"`    // the spec that was provisioned last names another one
}

// String names the thing for people.
func (t thing) String() string {
	name := "slot " + t.Slot
	if t.Slot == "" {
		name = "publication " + t.Publication
	}
	return fmt.Sprintf("%s in database %s of server %s", name, t.Database, t.System)
}

// same reports whether two are the same thing. The slots of all databases of a server share their names.
func (t thing) same(o thing) bool {
	return t.System == o.System && t.Slot == o.Slot && t.Publication == o.Publication && (t.Slot != "" || t.Database == o.Database)
}

// made is what is on record of things, with the place at which it is looked at.
type made struct {
	record  source.Record
	here    place
	things  []thing
	unsaved bool
	fresh   []thing // of this attempt
}

func (s *Source) loadMade(ctx context.Context) (*made, error) {
	m := &made{record: s.settings.Made}
	data, err := m.record.Load(ctx)
	if err == nil && len(data) > 0 {
		if err = json.Unmarshal(data, &m.things); err != nil {
			err = failure.StateCorrupt.Errorf("decoding: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the source has made: %w", err)
	}
	return m, nil
}

// madeHere is loadMade where somebody is connected.
func (s *Source) madeHere(ctx context.Context, conn *pgx.Conn) (*made, error) {
	m, err := s.loadMade(ctx)
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	err = conn.QueryRow(bounded, "SELECT system_identifier::text, current_database()::text FROM pg_control_system()").Scan(&m.here.System, &m.here.Database)
	if err = wrap(err, "asking the server who it is"); failure.CodeOf(err) != failure.PermissionDenied {
		return m, err
	}
	m.here.Database = conn.Config().Database
	replication, err := s.connectReplication(ctx) // where everybody may ask
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, replication)
	system, err := s.identify(ctx, replication)
	m.here.System, _, _ = strings.Cut(system, "/")
	return m, err
}

func (m *made) slot(name string) thing        { return thing{place: m.here, Slot: name} }
func (m *made) publication(name string) thing { return thing{place: m.here, Publication: name} }

// find returns what is on record of a thing, nil when nothing is: then it is somebody else's.
func (m *made) find(t thing) *thing {
	if i := slices.IndexFunc(m.things, t.same); i >= 0 {
		return &m.things[i]
	}
	return nil
}

// save puts on record which things there are.
func (m *made) save(ctx context.Context, things []thing) error {
	var data []byte
	if len(things) > 0 {
		var err error
		if data, err = json.Marshal(things); err != nil {
			return fmt.Errorf("encoding what the source has made: %w", err)
		}
	}
	if err := m.record.Save(ctx, data); err != nil {
		return fmt.Errorf("recording what the source has made: %w", err)
	}
	m.things, m.unsaved = things, false
	return nil
}

// intend puts on record that a thing is about to be made, of which it is known that it does not exist.
func (m *made) intend(ctx context.Context, t thing) error {
	t.Making = true
	m.fresh = append(m.fresh, t)
	return m.save(ctx, append(slices.DeleteFunc(slices.Clone(m.things), t.same), t))
}

// forget takes a thing off the record.
func (m *made) forget(ctx context.Context, t thing) error {
	if m.find(t) == nil {
		return nil
	}
	return m.save(ctx, slices.DeleteFunc(slices.Clone(m.things), t.same))
}

// settle says that a spec is provisioned, and thereby which things are in use and which were those of an earlier spec.
func (m *made) settle(ctx context.Context, used ...thing) error {
	things := slices.Clone(m.things)
	for i, t := range things {
		in := slices.ContainsFunc(used, t.same)
		things[i].Making, things[i].Old = t.Making && !in, !in
	}
	if !m.unsaved && slices.Equal(things, m.things) {
		return nil
	}
	return m.save(ctx, things)
}

// learn takes for ours what our own publication says to be so, which is how builds without a record noted it, and is
// of use where the record was lost.
func (s *Source) learn(m *made, p *publication) {
	if p == nil || !s.ours(p) {
		return
	}
	m.learn(m.publication(s.publication))
	slot, at := p.slotMade()
	if slot == "" && at != 0 {
		slot = s.slot // of a build that did not note its name
	}
	if slot != "" {
		m.learn(m.slot(slot))
	}
}

func (m *made) learn(t thing) {
	if m.find(t) == nil {
		m.things, m.unsaved = append(m.things, t), true
	}
}

// Teardown implements source.Source.
func (s *Source) Teardown(ctx context.Context) error {
	_, err := s.remove(ctx, true, func(thing) bool { return true })
	return err
}

// Retire implements source.Retirer.
func (s *Source) Retire(ctx context.Context) (done bool, err error) {
	return s.remove(ctx, false, func(t thing) bool { return t.Old })
}

// remove removes those things on record that this source's database has, and reports whether none is left elsewhere.
// With all, which is when no spec is left, it also looks for what is not on record.
func (s *Source) remove(ctx context.Context, all bool, which func(thing) bool) (done bool, err error) {
	m, err := s.loadMade(ctx)
	if err != nil || !all && !slices.ContainsFunc(m.things, which) {
		return err == nil, err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return false, m.leaves(which, err)
	}
	defer hangUp(ctx, conn)
	if m, err = s.madeHere(ctx, conn); err != nil {
		return false, err
	}
	if all {
		p, err := s.publicationState(ctx, conn, s.publication)
		if err != nil {
			return false, m.leaves(which, err)
		}
		s.learn(m, p)
		s.warnOfSlot(ctx, conn, m)
	}
	if err := s.removeThings(ctx, conn, m, which); err != nil {
		return false, m.leaves(which, err)
	}
	return !slices.ContainsFunc(m.things, which), nil
}

// removeThings removes things of the database that conn is connected to. The slots go first: they pin the server's WAL.
func (s *Source) removeThings(ctx context.Context, conn *pgx.Conn, m *made, which func(thing) bool) error {
	things := slices.DeleteFunc(slices.Clone(m.things), func(t thing) bool { return t.place != m.here || !which(t) })
	slices.SortStableFunc(things, func(a, b thing) int { return strings.Compare(b.Slot, a.Slot) })
	for _, t := range things {
		var err error
		if t.Slot != "" {
			err = s.dropSlot(ctx, conn, t.Slot, t.Database)
		} else {
			err = s.dropPublication(ctx, conn, t.Publication)
		}
		if err == nil {
			err = m.forget(ctx, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leaves says in an error what is still there because of it.
func (m *made) leaves(which func(thing) bool, err error) error {
	var names []string
	for _, t := range m.things {
		if which(t) {
			names = append(names, t.String())
		}
	}
	if len(names) == 0 {
		return err
	}
	return fmt.Errorf("%s cannot be removed: %w", strings.Join(names, ", "), err)
}

// warnOfSlot tells of a slot with the name that the spec has, which stays because nothing says that the source made it.
func (s *Source) warnOfSlot(ctx context.Context, conn *pgx.Conn, m *made) {
	if m.find(m.slot(s.slot)) != nil {
		return
	}
	if slot, err := s.slotState(ctx, conn); err == nil && slot != nil {
		s.log.Info("a slot stays that the source did not make", zap.String("slot", s.slot))
	}
}

// unmake removes what a failing attempt has made, on a connection of its own since the other one may be the reason of
// the failure, and also when the call's context has ended. What another attempt has come to use meanwhile stays.
func (s *Source) unmake(ctx context.Context, failed *made) error {
	if len(failed.fresh) == 0 {
		return nil
	}
	ctx, cancel := s.bounded(context.WithoutCancel(ctx))
	defer cancel()
	conn, err := s.connect(ctx)
	if err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	defer hangUp(ctx, conn)
	m, err := s.madeHere(ctx, conn)
	if err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	err = s.removeThings(ctx, conn, m, func(t thing) bool { return t.Making && slices.ContainsFunc(failed.fresh, t.same) })
	return wrap(err, "undoing")
}

// notOurs refuses a slot that exists already and that we have not made: somebody may read from it.
func (s *Source) notOurs() error {
	return failure.SlotTaken.Errorf("checking the slot: %s exists, and this source did not make it", s.slot).WithDetail("slot", s.slot).
		WithFix("Choose another slot in the spec or, if nobody else reads from this one, set adoptSlot, then signal reconfigure; or drop it with %s and signal resume.", dropSlotSQL(s.slot))
}

// kept is a record that lasts as long as the source.
type kept struct{ data []byte }

// Load implements source.Record.
func (k *kept) Load(context.Context) ([]byte, error) { return k.data, nil }

// Save implements source.Record.
func (k *kept) Save(_ context.Context, data []byte) error {
	k.data = data
	return nil
}
