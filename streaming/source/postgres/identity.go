package postgres

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pglogrepl"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// identity names a server and its timeline, which is a new one from each promotion on.
func identity(system pglogrepl.IdentifySystemResult) string {
	return fmt.Sprintf("%s/%d", system.SystemID, system.Timeline)
}

// identify makes sure that what the server sends from st.last on follows what came before: positions of another server
// mean something else, and a standby may have been promoted before it had everything.
func (st *stream) identify(ctx context.Context, system pglogrepl.IdentifySystemResult) error {
	now, known := identity(system), st.sink.System()
	if known != "" && known != now && st.last != 0 {
		server, timeline, _ := strings.Cut(known, "/")
		if server != system.SystemID {
			return failure.WrongSystem.Errorf("the server's system identifier is %s, and was %s", system.SystemID, server).
				WithDetail("position", string(position(st.last)))
		}
		if err := st.follows(ctx, timeline, system.Timeline); err != nil {
			return err
		}
	}
	st.sink.Identify(now)
	return nil
}

// follows reads the history of a timeline: it must have left the one that we know behind our position.
func (st *stream) follows(ctx context.Context, known string, now int32) error {
	history, err := pglogrepl.TimelineHistory(ctx, st.conn, now)
	if err != nil {
		return wrap(err, "reading the history of timeline %d", now)
	}
	lines := bufio.NewScanner(bytes.NewReader(history.Content))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != known {
			continue
		}
		left, err := parsePosition(graph.Position(fields[1]))
		if err == nil && st.last <= left {
			st.source.log.Info(fmt.Sprintf("the server was promoted: timeline %d follows %s at %s", now, known, fields[1]))
			return nil
		}
		return failure.TimelineDiverged.Errorf("timeline %d left timeline %s at %s, and we have read up to %s", now, known, fields[1], position(st.last))
	}
	return failure.TimelineDiverged.Errorf("timeline %d does not come from timeline %s, of which we have read up to %s", now, known, position(st.last))
}
