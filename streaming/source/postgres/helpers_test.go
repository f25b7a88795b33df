package postgres_test

import (
	"time"

	"github.com/stretchr/testify/assert"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/source"
)

type collect = assert.CollectT

const tick = 20 * time.Millisecond

// ownSettings are for servers of one test, where names need not differ.
func (d db) ownSettings() source.Settings {
	return source.Settings{Instance: "default", Name: "orders", Generation: 1, Log: zaptest.NewLogger(d)}
}
