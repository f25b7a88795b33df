package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

const (
	standardLetters = 100
	mostLetters     = 1000
	// mostLetterBytes ends a page early: a letter may have some megabytes, and a page is made in memory.
	mostLetterBytes = 2 << 20
)

// letters is a page of dead letters, oldest first.
type letters struct {
	Component string `json:"component"`
	pipeline.DeadLetterCount
	DeadLetters []json.RawMessage `json:"deadLetters"`    // each a pipeline.DeadLetter
	Next        string            `json:"next,omitempty"` // to be given as after for the next page, if there may be one
}

// deadLetters lists what a target did not take, or a source could not decode: ?after=<id>&limit=<n>. A reader that stops
// reading does not hold the page for as long as it stays connected.
func (a *api) deadLetters(kind component.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, err := a.page(r, kind)
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		err = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.WriteTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the client went away
		}
		writeJSON(w, http.StatusOK, page)
	}
}

func (a *api) page(r *http.Request, kind component.Kind) (letters, error) {
	id, err := named(r, kind)
	if err != nil {
		return letters{}, err
	}
	limit := standardLetters
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > mostLetters {
			return letters{}, failure.ConfigInvalid.Errorf("limit: %q is not a number from 1 to %d", text, mostLetters).WithFix("Correct the parameter.")
		}
	}
	page := letters{Component: id.String(), DeadLetters: []json.RawMessage{}}
	if page.DeadLetterCount, err = a.DeadLetters.Count(r.Context(), id); err != nil {
		return letters{}, err
	}
	err = page.fill(r.Context(), a.DeadLetters, id, r.URL.Query().Get("after"), limit)
	return page, err
}

// fill adds up to limit letters, one at least, that together are not too long.
func (l *letters) fill(ctx context.Context, from *pipeline.DeadLetters, id component.ID, after string, limit int) error {
	for size := 0; ; {
		one, err := from.List(ctx, id, after, 1)
		if err != nil || len(one) == 0 {
			return err
		}
		text, err := json.Marshal(one[0])
		if err != nil {
			return fmt.Errorf("encoding dead letter %s: %w", one[0].ID, err)
		}
		if size += len(text); size > mostLetterBytes && len(l.DeadLetters) > 0 {
			l.Next = after
			return nil
		}
		l.DeadLetters, after = append(l.DeadLetters, text), one[0].ID
		if len(l.DeadLetters) == limit {
			l.Next = after
			return nil
		}
	}
}
