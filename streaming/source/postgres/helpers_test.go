package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// reads is what a query reads of a label.
func reads(properties ...string) source.Reads { return source.Reads{Properties: properties} }

type collect = assert.CollectT

const tick = 20 * time.Millisecond

// ownSettings are for servers of one test, where names need not differ.
func (d db) ownSettings() source.Settings {
	return source.Settings{Instance: "default", Name: "orders", Generation: 1, Log: zaptest.NewLogger(d)}
}

// ownSource returns a provisioned source of table a on a server of its own; members are added to the config.
func (d db) ownSource(members string) source.Source {
	d.Helper()
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	s, err := postgres.Factory{}.New(d.config(`"tables": [{"name": "a"}]`+members), d.ownSettings())
	require.NoError(d, err)
	require.NoError(d, s.Provision(d.Context()))
	return s
}

// newDBIn is newDB with an encoding.
func newDBIn(t testing.TB, encoding string) db {
	d := newDB(t)
	name, server := d.text("SELECT current_database()"), clustertest.Start(t).URL()
	clustertest.Exec(t, server, "DROP DATABASE "+name)
	clustertest.Exec(t, server, fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'", name, encoding))
	return d
}
