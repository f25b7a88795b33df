package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

var _ source.Checker = (*Source)(nil)

// Check implements source.Checker. It needs no privilege but to connect: the system's catalogs are open to everybody.
func (s *Source) Check(ctx context.Context) ([]source.Check, error) {
	conn, err := s.connect(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	d := &doctor{Source: s, conn: conn}
	if err != nil {
		d.failed("connection", "", err, "")
		return d.checks, nil
	}
	defer hangUp(ctx, conn)
	for _, step := range []struct {
		name string
		make func(*doctor, context.Context) error
	}{
		{"connection", (*doctor).connection},
		{"server", (*doctor).server},
		{"settings", (*doctor).settings},
		{"capacity", (*doctor).capacity},
		{"replication", (*doctor).replication},
		{"table", (*doctor).tables},
		{"publication", (*doctor).publicationCheck},
		{"slot", (*doctor).slotCheck},
		{"transaction", (*doctor).transactions},
		{"failover", (*doctor).failover},
		{"leftover", (*doctor).leftovers},
		{"clock", (*doctor).clock},
	} {
		if err := d.step(ctx, step.make); err != nil {
			d.skipped(step.name, wrap(err, "looking").Error())
			if d.facts.version == 0 {
				return d.checks, nil // the others depend on it
			}
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
	}
	d.skipped("disk", "a server does not tell through SQL how much room its disk has")
	return d.checks, nil
}

func (d *doctor) step(ctx context.Context, make func(*doctor, context.Context) error) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return make(d, ctx)
}

// doctor makes the checks of one connection.
type doctor struct {
	*Source
	conn   *pgx.Conn
	checks []source.Check

	facts   facts
	catalog *catalog // nil while a table of the spec is not as it must be
	foreign []string // tables that the role does not own
}

// facts are what several checks depend on.
type facts struct {
	version                        int // 0 when nothing is known
	recovering                     bool
	role, database                 string
	replicates, managed, mayCreate bool

	slots, senders, streams int64 // replication slots, WAL senders, and those of them that serve logical slots
	haveSlot, slotActive    bool
	counted                 bool // these five are known

	synchronizedSlots string
}

func (d *doctor) good(name, object, found string, args ...any) {
	d.checks = append(d.checks, source.Check{Name: name, Object: object, OK: true, Found: fmt.Sprintf(found, args...)})
}

func (d *doctor) bad(c source.Check) { d.checks = append(d.checks, c) }

func (d *doctor) skipped(name, reason string) {
	d.bad(source.Check{Name: name, Severity: source.Skipped, Found: reason})
}

// statementIn finds the SQL in the advice of a failure.
var statementIn = regexp.MustCompile(`[Rr]un (.*;) (?:then|or) `)

// failed reports what Provision or Run would fail with.
func (d *doctor) failed(name, object string, err error, wanted string) {
	c := source.Check{
		Name: name, Object: object, Severity: source.Blocking, Code: failure.CodeOf(err).ID, Found: err.Error(), Wanted: wanted,
		Fix: failure.Describe(err).Fix,
	}
	if m := statementIn.FindStringSubmatch(c.Fix); m != nil && !strings.Contains(m[1], "(...)") {
		for _, statement := range strings.SplitAfter(m[1], ";") {
			if statement = strings.TrimSpace(statement); statement != "" {
				c.SQL = append(c.SQL, statement)
			}
		}
	}
	d.bad(c)
}

// connection says how the server was reached. The wish for TLS is waived where nobody can listen.
func (d *doctor) connection(ctx context.Context) error {
	remote := d.conn.PgConn().Conn().RemoteAddr()
	d.good("connection", "", "connected to %s", remote)
	if t, ok := d.conn.PgConn().Conn().(*tls.Conn); ok {
		d.good("encryption", "", "%s", tls.VersionName(t.ConnectionState().Version))
		return nil
	}
	if address, ok := remote.(*net.TCPAddr); !ok || address.IP.IsLoopback() {
		d.good("encryption", "", "none, but the server is on this machine")
		return nil
	}
	d.bad(source.Check{Name: "encryption", Severity: source.Warning, Found: "none: passwords and rows can be read on the way", Wanted: "TLS",
		Fix: "Turn TLS on at the server (ssl = on), and set sslMode to verify-full and sslRootCert in the spec."})
	return nil
}

func (d *doctor) server(ctx context.Context) error {
	f := &d.facts
	err := d.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_user::text, current_database()::text,
			(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)
				OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER')),
			EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'), has_database_privilege(current_database(), 'CREATE')`).
		Scan(&f.version, &f.recovering, &f.role, &f.database, &f.replicates, &f.managed, &f.mayCreate)
	if err != nil {
		return err
	}
	if f.version < oldestServer {
		d.bad(source.Check{Name: "version", Severity: source.Blocking, Code: failure.Unsupported.ID, Found: versionText(f.version), Wanted: "14 or newer", Fix: "Upgrade the server."})
	} else {
		d.good("version", "", "%s", versionText(f.version))
	}
	switch {
	case !f.recovering:
		d.good("server role", "", "primary")
	case f.version < 160000:
		d.bad(source.Check{Name: "server role", Severity: source.Blocking, Code: failure.ServerRole.ID, Found: "standby, which before version 16 cannot decode", Wanted: "primary",
			Fix: "Name the primary in the spec, and leave out targetSessionAttrs."})
	default:
		d.good("server role", "", "standby, which can decode but cannot create a publication")
	}
	return nil
}

func versionText(number int) string { return fmt.Sprintf("%d.%d", number/10000, number%10000) }

const (
	superuserFix = "Run the SQL as a superuser. Managed servers have it in their parameter group."
	restartFix   = "Run the SQL as a superuser, then restart the server. Managed servers have it in their parameter group."
)

func setting(name, value string) string {
	return fmt.Sprintf("ALTER SYSTEM SET %s = '%s';", name, value)
}

const reload = "SELECT pg_reload_conf();"

func (d *doctor) settings(ctx context.Context) error {
	rows, err := d.conn.Query(ctx, `SELECT name, setting, coalesce(unit, '') FROM pg_settings WHERE name IN
		('wal_level', 'wal_sender_timeout', 'max_slot_wal_keep_size', 'logical_decoding_work_mem', 'synchronized_standby_slots')`)
	if err != nil {
		return err
	}
	values, units := make(map[string]string), make(map[string]string)
	var name, value, unit string
	if _, err = pgx.ForEachRow(rows, []any{&name, &value, &unit}, func() error {
		values[name], units[name] = value, unit
		return nil
	}); err != nil {
		return err
	}
	d.facts.synchronizedSlots = values["synchronized_standby_slots"]
	d.walLevel(values["wal_level"])
	statuses := 3 * d.config.StatusInterval.Milliseconds()
	for _, c := range []struct {
		name   string
		least  int64
		wanted string
		value  string // that the SQL sets
		risk   string
	}{
		{"wal_sender_timeout", statuses, fmt.Sprintf("at least %d ms, three times statusInterval", statuses), fmt.Sprintf("%dms", max(60_000, statuses)),
			"0 keeps the slot of a worker that has vanished in use, and a small one cuts a busy worker off"},
		{"max_slot_wal_keep_size", 0, "a limit below the room on the disk", "64GB", "-1 lets a source that stands still fill the disk"},
		{"logical_decoding_work_mem", 64 << 10, "at least 65536 kB", "64MB", "a small one makes the server write transactions to its disk, or send them before they commit"},
	} {
		found := values[c.name] + " " + units[c.name]
		switch v, err := strconv.ParseInt(values[c.name], 10, 64); {
		case err != nil:
			d.skipped(c.name, "the server does not tell")
		case v >= c.least:
			d.good(c.name, "", "%s", found)
		default:
			d.bad(source.Check{Name: c.name, Severity: source.Warning, Found: found + ": " + c.risk, Wanted: c.wanted, Fix: superuserFix,
				SQL: []string{setting(c.name, c.value), reload}})
		}
	}
	return nil
}

func (d *doctor) walLevel(level string) {
	if level == "logical" {
		d.good("wal_level", "", "logical")
		return
	}
	c := source.Check{Name: "wal_level", Severity: source.Blocking, Code: failure.WalLevelNotLogical.ID, Found: level, Wanted: "logical",
		Fix: restartFix, SQL: []string{setting("wal_level", "logical")}}
	if d.facts.managed {
		c.Fix, c.SQL = "Set rds.logical_replication to 1 in the parameter group, then restart the server.", nil
	}
	d.bad(c)
}

// capacity looks whether slots and senders are free: beside those for the stream, a snapshot takes one of each for a
// moment.
func (d *doctor) capacity(ctx context.Context) error {
	f := &d.facts
	var mostSlots, mostSenders int64
	err := d.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication),
			(SELECT count(*) FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid AND slot_type = 'logical'),
			EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1), EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active),
			current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`, d.slot).
		Scan(&f.slots, &f.senders, &f.streams, &f.haveSlot, &f.slotActive, &mostSlots, &mostSenders)
	if err != nil {
		return err
	}
	f.counted = true
	for _, c := range []struct {
		name       string
		used, most int64
		have       bool
	}{{"max_replication_slots", f.slots, mostSlots, f.haveSlot}, {"max_wal_senders", f.senders, mostSenders, f.slotActive}} {
		needed := int64(1)
		if c.have {
			needed = 0
		}
		found, free := fmt.Sprintf("%d of %d in use", c.used, c.most), c.most-c.used
		if free > needed {
			d.good(c.name, "", "%s", found)
			continue
		}
		severity := source.Warning
		if free < needed {
			severity = source.Blocking
		}
		d.bad(source.Check{Name: c.name, Severity: severity, Code: failure.SlotCapacity.ID, Found: found,
			Wanted: fmt.Sprintf("%d free, one of them for snapshots", needed+1), Fix: restartFix, SQL: []string{setting(c.name, strconv.FormatInt(c.used+needed+5, 10))}})
	}
	return nil
}

// replication looks at the privilege to replicate, and whether the server lets us do it from here.
func (d *doctor) replication(ctx context.Context) error {
	f := &d.facts
	if !f.replicates {
		sql := fmt.Sprintf("ALTER ROLE %s REPLICATION;", quote(f.role))
		if f.managed {
			sql = fmt.Sprintf("GRANT rds_replication TO %s;", quote(f.role))
		}
		d.bad(source.Check{Name: "replication", Severity: source.Blocking, Code: failure.PermissionDenied.ID, Found: f.role + " may not replicate",
			Wanted: "the privilege to replicate", Fix: "Run the SQL as a superuser.", SQL: []string{sql}})
		return nil
	}
	replication, err := d.connectReplication(ctx)
	if err != nil {
		d.failed("replication", "", err, "a connection for replication, which pg_hba.conf must allow for the database, not for the keyword replication")
		return nil
	}
	defer hangUp(ctx, replication)
	d.good("replication", "", "%s may replicate", f.role)
	return nil
}

// clockSlack is how far clocks may be apart before times of commits mislead.
const clockSlack = 5 * time.Second

func (d *doctor) clock(ctx context.Context) error {
	var server time.Time
	begin := time.Now()
	if err := d.conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&server); err != nil {
		return err
	}
	took := time.Since(begin)
	d.compareClocks(server.Sub(begin.Add(took/2)), took)
	return nil
}

func (d *doctor) compareClocks(ahead, uncertain time.Duration) {
	if ahead.Abs() <= clockSlack+uncertain {
		d.good("clock", "", "the server's is %+.1f s from ours", ahead.Seconds())
		return
	}
	d.bad(source.Check{Name: "clock", Severity: source.Warning, Found: fmt.Sprintf("the server's is %+.1f s from ours, so that lags and times of commits mislead", ahead.Seconds()),
		Wanted: "at most 5 s", Fix: "Synchronise the clocks of server and worker by NTP."})
}
