package failure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

func TestClassAndCodeSurviveWrapping(t *testing.T) {
	inner := failure.SlotMissing.Errorf("opening slot %q: %w", "s1", io.ErrUnexpectedEOF).WithDetail("slot", "s1")
	err := fmt.Errorf("running source orders: %w", inner)

	require.Equal(t, failure.Invalidated, failure.ClassOf(err))
	require.Same(t, failure.SlotMissing, failure.CodeOf(err))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, `running source orders: opening slot "s1": unexpected EOF`)
}

func TestErrorsThatNobodyClassifiedAreTransient(t *testing.T) {
	require.Same(t, failure.Unclassified, failure.CodeOf(errors.New("odd")))
	require.True(t, failure.ClassOf(errors.New("odd")).Retryable())
	require.Same(t, failure.Cancelled, failure.CodeOf(fmt.Errorf("reading: %w", context.Canceled)))
	require.Same(t, failure.Timeout, failure.CodeOf(context.DeadlineExceeded))
}

func TestDescribeKeepsTheCauseChainAndMergesDetails(t *testing.T) {
	low := failure.PermissionDenied.Errorf("creating slot: %w", io.EOF).WithDetail("sqlstate", "42501").WithDetail("slot", "low").
		WithFix("Run ALTER ROLE app REPLICATION.")
	top := failure.ConfigInvalid.Errorf("provisioning: %w", low).WithDetail("slot", "top")

	r := failure.Describe(top)
	require.Equal(t, "ConfigInvalid", r.Code)
	require.Equal(t, "configuration", r.Class)
	require.Equal(t, []string{"creating slot: EOF", "EOF"}, r.Causes)
	require.Equal(t, map[string]string{"sqlstate": "42501", "slot": "top"}, r.Details)
	require.Equal(t, failure.ConfigInvalid.Fix, r.Fix)
	require.Equal(t, "Run ALTER ROLE app REPLICATION.", failure.Describe(low).Fix)
}

// TestDescribeWalksTheTree: pgconn joins the errors of all hosts, and what is torn down joins those of all parts.
func TestDescribeWalksTheTree(t *testing.T) {
	denied := failure.PermissionDenied.Errorf("creating slot: %w", io.EOF).WithDetail("sqlstate", "42501").WithDetail("slot", "first")
	missing := failure.TableMissing.Errorf("%w", errors.Join(nil, errors.New("no table"))).WithDetail("table", "public.orders").WithDetail("slot", "second")
	err := fmt.Errorf("stopping: %w", errors.Join(denied, fmt.Errorf("%w, then %w", missing, io.ErrShortWrite)))

	r := failure.Describe(err)
	require.Equal(t, "PermissionDenied", r.Code)
	require.Equal(t, []string{
		"creating slot: EOF\nno table, then short write", "creating slot: EOF", "EOF", "no table, then short write", "no table", "short write",
	}, r.Causes)
	require.Equal(t, map[string]string{"sqlstate": "42501", "slot": "first", "table": "public.orders"}, r.Details)
}

func TestDescribeEnds(t *testing.T) {
	var many []error
	for n := range 1000 {
		many = append(many, fmt.Errorf("error %d", n))
	}
	require.Len(t, failure.Describe(fmt.Errorf("all: %w", errors.Join(many...))).Causes, 99)
}

func TestOutlineKeepsTheRoot(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	require.Equal(t, all, failure.Outline(all, 5))
	require.Equal(t, []string{"a", "b", "...", "e"}, failure.Outline(all, 4))
	require.Equal(t, []string{"a", "...", "e"}, failure.Outline(failure.Outline(all, 4), 3))
	require.Equal(t, []string{"a", "b", "c", "d", "e"}, all, "the report stays")
}

func TestDescribeFindsACodeInsideJoinedErrors(t *testing.T) {
	r := failure.Describe(errors.Join(errors.New("first"), failure.TableMissing.Errorf("table %s", "t")))
	require.Equal(t, "TableMissing", r.Code)
}

func TestWithDetailAndWithFixLeaveTheOriginalAlone(t *testing.T) {
	base := failure.Timeout.Errorf("connecting")
	_ = base.WithDetail("host", "db1").WithFix("wait")
	require.Nil(t, base.Details())
	require.Equal(t, failure.Timeout.Fix, base.Fix())
}

func TestCatalogueIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range failure.Codes() {
		require.False(t, seen[c.ID], "code %s is defined twice", c.ID)
		seen[c.ID] = true
		require.Regexp(t, `^[A-Z][A-Za-z]+$`, c.ID)
		require.NotEmpty(t, c.Meaning, c.ID)
		require.NotEmpty(t, c.Fix, c.ID)
		require.NotContains(t, c.Class.String(), "class(", c.ID)
	}
}
