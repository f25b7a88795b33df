package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/deploy/examples/orders"
)

// outcome is how one maintained result compares with SQL's answer.
type outcome struct {
	query    string
	position string
	rows     int
	missing  []string // SQL has them, the result has not
	surplus  []string // the other way round
}

// compare asks for each maintained result at a position after everything that was written, and asks SQL the same.
func (d *demo) compare(ctx context.Context, s *shop) ([]outcome, error) {
	position, err := s.position(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking Postgres for its position: %w", err)
	}
	var all []outcome
	for _, query := range queries {
		sql, err := orders.Files.ReadFile(query + ".sql")
		if err != nil {
			return nil, fmt.Errorf("reading the example: %w", err)
		}
		answer, err := s.ask(ctx, string(sql))
		if err != nil {
			return nil, fmt.Errorf("asking SQL for %s: %w", query, err)
		}
		maintained, err := d.maintained(ctx, query, position)
		if err != nil {
			return nil, fmt.Errorf("asking for the result of %s: %w", query, err)
		}
		want, err := canonical(answer)
		if err != nil {
			return nil, err
		}
		have, err := canonical(maintained)
		if err != nil {
			return nil, err
		}
		all = append(all, outcome{query: query, position: position, rows: len(have), missing: without(want, have), surplus: without(have, want)})
	}
	return all, nil
}

// maintained returns the rows that the API shows once it has come to position.
func (d *demo) maintained(ctx context.Context, query, position string) ([]string, error) {
	address := d.stack.API + "/api/v1/queries/" + query + "/results?min_lsn=" + url.QueryEscape(position) + "&timeout=20s"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	var results struct {
		Rows []json.RawMessage `json:"rows"`
	}
	if err := json.Unmarshal(body, &results); err != nil {
		return nil, err
	}
	rows := make([]string, len(results.Rows))
	for i, r := range results.Rows {
		rows[i] = string(r)
	}
	return rows, nil
}

// canonical brings JSON objects into one form and order: 1.50 and 1.5 are the same number.
func canonical(rows []string) ([]string, error) {
	all := make([]string, len(rows))
	for i, text := range rows {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var object map[string]any
		if err := d.Decode(&object); err != nil {
			return nil, fmt.Errorf("decoding row %s: %w", text, err)
		}
		for name, value := range object {
			if n, ok := value.(json.Number); ok {
				if r, ok := new(big.Rat).SetString(n.String()); ok {
					object[name] = json.Number(strings.TrimSuffix(strings.TrimRight(r.FloatString(12), "0"), "."))
				}
			}
		}
		same, err := json.Marshal(object) // sorts its members
		if err != nil {
			return nil, fmt.Errorf("encoding row %s: %w", text, err)
		}
		all[i] = string(same)
	}
	slices.Sort(all)
	return all, nil
}

// without returns what is in a more often than in b; both are sorted.
func without(a, b []string) []string {
	var rest []string
	for _, s := range a {
		for len(b) > 0 && b[0] < s {
			b = b[1:]
		}
		if len(b) > 0 && b[0] == s {
			b = b[1:]
			continue
		}
		rest = append(rest, s)
	}
	return rest
}

func (d *demo) summarise(s *shop, w *watcher, elapsed time.Duration, outcomes []outcome) error {
	changes := s.changes.Load()
	d.printf("\nwrote      %d transactions, %d row changes in %s: %.1f changes/s\n",
		s.transactions.Load(), changes, elapsed.Round(100*time.Millisecond), float64(changes)/elapsed.Seconds())
	if at := w.percentiles(0.5, 0.99, 1); at != nil {
		d.printf("received   %d differences in %d events; commit to reaction p50 %s, p99 %s, max %s\n",
			w.diffs, len(w.latencies), milliseconds(at[0]), milliseconds(at[1]), milliseconds(at[2]))
	} else {
		d.printf("received   no differences\n")
	}
	var differs error
	for _, o := range outcomes {
		if len(o.missing)+len(o.surplus) == 0 {
			d.printf("%s      %s: %d rows at %s, the same as SQL's\n", d.paint.good("equal"), o.query, o.rows, o.position)
			continue
		}
		d.printf("%s     %s: %d rows at %s, not the same as SQL's\n", d.paint.bad("DIFFER"), o.query, o.rows, o.position)
		for _, r := range o.missing {
			d.printf("  only in SQL:        %s\n", r)
		}
		for _, r := range o.surplus {
			d.printf("  only in the result: %s\n", r)
		}
		differs = errors.Join(differs, fmt.Errorf("the result of %s differs from SQL's answer", o.query))
	}
	return differs
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
