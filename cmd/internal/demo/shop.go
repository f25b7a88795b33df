package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/deploy/examples/orders"
)

const (
	customerCount = 12 // as in schema.sql
	seedOrders    = 100
	// backlog is how many open orders the clients keep about.
	backlog = 150
)

// products are those of schema.sql.
var products = []string{"lamp", "desk", "chair", "shelf", "clock", "kettle", "carpet", "mirror"}

// shop is the example's database and the clients that write to it.
type shop struct {
	url          string
	conn         *pgx.Conn // of the demonstration itself
	open         atomic.Int64
	transactions atomic.Int64
	changes      atomic.Int64 // rows
}

func openShop(ctx context.Context, url string) (*shop, error) {
	schema, err := orders.Files.ReadFile("schema.sql")
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	s := &shop{url: url, conn: conn}
	if err := s.seed(ctx, string(schema)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *shop) seed(ctx context.Context, schema string) error {
	if _, err := s.conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("creating tables: %w", err)
	}
	var all, open int64
	if err := s.conn.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE status <> 'delivered') FROM orders`).Scan(&all, &open); err != nil {
		return fmt.Errorf("counting orders: %w", err)
	}
	s.open.Store(open)
	random := rand.New(rand.NewPCG(1, 1))
	for ; all < seedOrders; all++ {
		if _, err := s.place(ctx, s.conn, random); err != nil {
			return fmt.Errorf("placing the first orders: %w", err)
		}
	}
	return nil
}

func (s *shop) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // nothing depends on a polite goodbye
}

// write commits about rate transactions per second until ctx ends.
func (s *shop) write(ctx context.Context, rate int) error {
	clients := min(4, 1+rate/50)
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		group.Go(func() error {
			conn, err := pgx.Connect(ctx, s.url)
			if err != nil {
				return unlessEnded(ctx, fmt.Errorf("connecting a client: %w", err))
			}
			defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // as in close
			random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			tick := time.NewTicker(time.Second * time.Duration(clients) / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				// A transaction that has begun is finished, so that it is known what was written.
				rows, err := s.step(context.WithoutCancel(ctx), conn, random)
				if err != nil {
					return fmt.Errorf("writing: %w", err)
				}
				if rows > 0 {
					s.transactions.Add(1)
					s.changes.Add(rows)
				}
			}
		})
	}
	return group.Wait()
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// step is one transaction. Clients place more orders while few are open, and work on open ones otherwise.
func (s *shop) step(ctx context.Context, conn *pgx.Conn, random *rand.Rand) (rows int64, err error) {
	placing := 20
	if s.open.Load() < backlog {
		placing = 50
	}
	switch n := random.IntN(100); {
	case n < placing:
		return s.place(ctx, conn, random)
	case n < 94:
		return s.advance(ctx, conn)
	default:
		return s.cancel(ctx, conn)
	}
}

// place inserts an order with its lines.
func (s *shop) place(ctx context.Context, conn *pgx.Conn, random *rand.Rand) (rows int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var id int64
		err := tx.QueryRow(ctx, `INSERT INTO orders (customer_id) VALUES ($1) RETURNING id`, 1+random.IntN(customerCount)).Scan(&id)
		if err != nil {
			return err
		}
		lines := 1 + random.IntN(4)
		for line := 1; line <= lines; line++ {
			_, err := tx.Exec(ctx, `INSERT INTO order_lines VALUES ($1, $2, $3, $4, $5::int / 100.0)`,
				id, line, products[random.IntN(len(products))], 1+random.IntN(3), 500+random.IntN(15_000))
			if err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_lines WHERE order_id = $1) WHERE id = $1`, id)
		rows = int64(lines) + 2
		return err
	})
	if err == nil {
		s.open.Add(1)
	}
	return rows, err
}

// advance moves some open order one step on.
func (s *shop) advance(ctx context.Context, conn *pgx.Conn) (rows int64, err error) {
	var status string
	err = conn.QueryRow(ctx, `
		UPDATE orders SET status = CASE status WHEN 'placed' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE 'delivered' END
		WHERE id = (SELECT id FROM orders WHERE status <> 'delivered' ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING status`).Scan(&status)
	if err == pgx.ErrNoRows {
		return 0, nil
	}
	if err == nil && status == "delivered" {
		s.open.Add(-1)
	}
	return 1, err
}

// cancel deletes some order that is not paid yet, with its lines.
func (s *shop) cancel(ctx context.Context, conn *pgx.Conn) (rows int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var id int64
		err := tx.QueryRow(ctx, `SELECT id FROM orders WHERE status = 'placed' ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED`).Scan(&id)
		if err != nil {
			return err
		}
		for _, sql := range []string{`DELETE FROM order_lines WHERE order_id = $1`, `DELETE FROM orders WHERE id = $1`} {
			tag, err := tx.Exec(ctx, sql, id)
			if err != nil {
				return err
			}
			rows += tag.RowsAffected()
		}
		return nil
	})
	if err == pgx.ErrNoRows {
		return 0, nil
	}
	if err == nil {
		s.open.Add(-1)
	}
	return rows, err
}

// position returns a position at or after everything that was committed so far.
func (s *shop) position(ctx context.Context) (lsn string, err error) {
	err = s.conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&lsn)
	return lsn, err
}

// ask returns the rows of an SQL query as JSON objects.
func (s *shop) ask(ctx context.Context, sql string) ([]string, error) {
	rows, err := s.conn.Query(ctx, `SELECT row_to_json(r)::text FROM (`+sql+`) r`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
