// Package followtest follows the events of queries as a client does who is there all the time, and adds them up: what
// comes out must be the rows of the query, with no event missing, repeated or out of order, whatever breaks meanwhile.
package followtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// silence is a little longer than the server's heartbeats are apart.
const silence = 20 * time.Second

// Follower gets a query's events over SSE. Whenever a connection breaks or is silent it asks the next API, from where it
// was, as browsers do with Last-Event-ID. It is safe for concurrent use.
type Follower struct {
	// Silence is how long a connection may say nothing; New sets a bound that only broken ones reach. It must not be
	// changed once Run was called.
	Silence time.Duration

	apis []string

	mu     sync.Mutex
	replay *Replay
	broke  error // the last connection
}

// New returns a follower that asks the APIs at these URLs, such as http://127.0.0.1:8080, for the events of the replay's
// query. The replay is the follower's from then on.
func New(replay *Replay, apis ...string) *Follower {
	return &Follower{Silence: silence, apis: apis, replay: replay}
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		err := f.connection(ctx, f.apis[i%len(f.apis)]) // they are meant to break; what counts is what came
		f.mu.Lock()
		f.broke = err
		f.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (f *Follower) connection(ctx context.Context, api string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(f.Silence, cancel)
	defer timer.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/api/v1/queries/"+f.replay.Query+"/events", nil)
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.replay.started {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(f.replay.Sequence, 10))
	}
	f.mu.Unlock()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("events: %s", response.Status)
	}
	var name, data string
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		timer.Reset(f.Silence)
		field, value, colon := strings.Cut(lines.Text(), ":")
		switch field {
		case "event":
			name = strings.TrimSpace(value)
		case "data":
			data = value
		case "": // a comment, or the end of an event: what a connection that breaks leaves behind is none
			if data != "" && !colon {
				f.message(name, []byte(data))
				name, data = "", ""
			}
		}
	}
	return lines.Err()
}

// message takes an event, whose data is always one line.
func (f *Follower) message(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch name {
	case "snapshot":
		var s struct {
			Sequence uint64 `json:"sequence"`
			Rows     []struct {
				Key string          `json:"key"`
				Row json.RawMessage `json:"row"`
			} `json:"rows"`
		}
		if err := json.Unmarshal(data, &s); err != nil {
			f.replay.fault("a snapshot does not parse: %v: %.200s", err, data)
			return
		}
		rows := make(map[string]json.RawMessage)
		for _, row := range s.Rows {
			rows[row.Key] = row.Row
		}
		f.replay.Begin(s.Sequence, rows)
	case "diff":
		f.replay.Take(data)
	}
}

// Started returns nil when anything has come, else why nothing did.
func (f *Follower) Started() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.replay.started {
		return nil
	}
	return fmt.Errorf("nothing came; the last connection: %v", f.broke)
}

// Anew returns how often the result set was built anew.
func (f *Follower) Anew() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replay.Anew
}

// State returns the last event's sequence, the rows as Replay.Rows gives them, and all faults, so far.
func (f *Follower) State() (sequence uint64, rows, faults []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replay.Sequence, f.replay.Rows(), slices.Clone(f.replay.Faults)
}
