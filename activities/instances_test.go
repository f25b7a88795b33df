package activities

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWatchingCostsLittle also while a component is on its way for hours, and yet tells soon what is new of one that settles.
func TestWatchingCostsLittle(t *testing.T) {
	for _, health := range []string{HealthPending, HealthHealthy} {
		synctest.Test(t, func(t *testing.T) {
			began, looks := time.Now(), 0
			known := []ComponentState{{Component: orders, Health: health}}
			news, err := watch(t.Context(), known, func(_ context.Context, known []ComponentState) ([]ComponentState, error) {
				looks++
				if time.Since(began) < 5*time.Hour {
					return known, nil
				}
				return []ComponentState{{Component: orders, Health: HealthFailing}}, nil
			})
			require.NoError(t, err)
			require.Equal(t, HealthFailing, news[0].Health)
			require.Less(t, time.Since(began), 5*time.Hour+watchSeldom+time.Second)
			require.Less(t, looks, 2000)
		})
	}
}

// TestWatchingFollowsWhatChanges more closely than what does not.
func TestWatchingFollowsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changed time.Time
		began := time.Now()
		_, err := watch(t.Context(), []ComponentState{{Component: orders, Health: HealthPending}}, func(context.Context, []ComponentState) ([]ComponentState, error) {
			if time.Since(began) < time.Hour {
				return []ComponentState{{Component: orders, Health: HealthPending}}, nil
			}
			if changed.IsZero() {
				changed = time.Now()
			}
			if time.Since(changed) < time.Second {
				return []ComponentState{{Component: orders, Health: HealthPending, Phase: "Starting"}}, nil
			}
			return []ComponentState{{Component: orders, Health: HealthHealthy, Phase: "Running"}}, nil
		})
		require.NoError(t, err)
		require.Less(t, time.Since(changed), settleWithin)
	})
}
