package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// BenchmarkWorkerMemory reports the most memory that a worker needs which runs one source, after it started and after it
// drained a workload that was waiting for it, as fast as it could.
func BenchmarkWorkerMemory(b *testing.B) {
	for _, load := range workloads {
		b.Run(load.name, func(b *testing.B) { workerMemory(b, load) })
	}
}

func workerMemory(b *testing.B, load workload) {
	const limit = 5 * time.Minute
	s := newSystem(b, externalWorkers, ownPostgres(benchSettings))
	worker := s.startWorker("worker")
	conn := s.connect()
	write := func(sql string) {
		_, err := conn.Exec(s.context(limit), sql)
		require.NoError(b, err)
	}
	write(load.table)
	for _, statement := range load.write[:load.skip] {
		write(statement)
	}
	s.startComponent("Source", "source.default.shop", object{"spec": object{"name": "shop", "kind": "postgres", "policy": benchPolicy, "config": object{
		"url": object{"$secret": "env:PERDURE_E2E_DATABASE"}, "tables": []object{{"name": "public.bench", "label": "Bench"}},
	}}})
	s.awaitPhase("source.default.shop", "Running", time.Minute)
	b.ReportMetric(float64(worker.peak(b)>>20), "idle-MiB")
	worker.terminate(b, time.Minute)
	for _, statement := range load.write[load.skip:] {
		write(statement)
	}
	worker = s.startWorker("worker")
	eventually(b, limit, "all of it confirmed", func() error {
		switch behind, err := s.behind(conn); {
		case err != nil:
			return err
		case behind > 1<<20:
			return fmt.Errorf("%d MiB behind", behind>>20)
		}
		return nil
	})
	b.ReportMetric(float64(worker.peak(b)>>20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// behind returns how many bytes of WAL the source has not confirmed.
func (s *system) behind(conn *pgx.Conn) (bytes int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = conn.QueryRow(ctx, `SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots`).Scan(&bytes)
	return bytes, err
}
