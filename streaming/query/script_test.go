package query_test

import (
	"testing"

	"github.com/perdure/perdure/streaming/query/querytest"
)

func TestScripts(t *testing.T) { querytest.Run(t, "testdata") }
