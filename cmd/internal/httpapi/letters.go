package httpapi

import (
	"net/http"
	"strconv"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

const (
	standardLetters = 100
	mostLetters     = 1000
)

// letters is a page of dead letters, oldest first.
type letters struct {
	Component string `json:"component"`
	pipeline.DeadLetterCount
	DeadLetters []pipeline.DeadLetter `json:"deadLetters"`
	Next        string                `json:"next,omitempty"` // to be given as after for the next page, if there may be one
}

// deadLetters lists what a target did not take, or a source could not decode: ?after=<id>&limit=<n>.
func (a *api) deadLetters(kind component.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, err := a.page(r, kind)
		if err != nil {
			writeProblem(w, problemOf(err))
			return
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
	page := letters{Component: id.String(), DeadLetters: []pipeline.DeadLetter{}}
	if page.DeadLetterCount, err = a.DeadLetters.Count(r.Context(), id); err != nil {
		return letters{}, err
	}
	list, err := a.DeadLetters.List(r.Context(), id, r.URL.Query().Get("after"), limit)
	if err != nil {
		return letters{}, err
	}
	page.DeadLetters = append(page.DeadLetters, list...)
	if len(list) == limit {
		page.Next = list[limit-1].ID
	}
	return page, nil
}
