package postgres_test

import (
	"time"

	"github.com/stretchr/testify/assert"
)

type collect = assert.CollectT

const tick = 20 * time.Millisecond
