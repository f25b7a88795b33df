package memory_test

import (
	"testing"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/indextest"
	"github.com/perdure/perdure/streaming/index/memory"
)

func TestConformance(t *testing.T) {
	indextest.Run(t, func(*testing.T) index.Backend { return memory.New() })
}

// TestFewRecords has room for few records, so that most are bytes most of the time.
func TestFewRecords(t *testing.T) {
	indextest.Run(t, func(*testing.T) index.Backend { return memory.Sized(300) })
}
