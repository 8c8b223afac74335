package images

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// progress counts who asks it.
type progress struct {
	asked atomic.Int64
	err   error
}

func (p *progress) Pulled(_ context.Context, repository string) (done, total int64, err error) {
	if repository != "docker.io/library/public" {
		return 0, 0, fmt.Errorf("asked for %q", repository)
	}
	return p.asked.Add(1) << 20, 100 << 20, p.err
}

// A pull of 23 minutes that two pods wait for, one of them for ten minutes only.
func TestLongPullIsTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		told []string
	}{
		"known": {nil, []string{
			"1m0s: 1.0 of 100.0 MiB", "2m0s: 2.0 of 100.0 MiB", "3m0s: 3.0 of 100.0 MiB", "4m0s: 4.0 of 100.0 MiB", "5m0s: 5.0 of 100.0 MiB",
			"10m0s: 6.0 of 100.0 MiB", "15m0s: 7.0 of 100.0 MiB", "20m0s: 8.0 of 100.0 MiB",
		}},
		"not known": {errors.New("the runtime does not tell"), []string{"1m0s", "2m0s", "3m0s", "4m0s", "5m0s", "10m0s", "15m0s", "20m0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{present: map[string]*runtimeapi.Image{}, public: map[string]bool{"public:1": true}, hold: make(chan struct{})}
				p, told := &progress{err: c.err}, map[types.UID]*events{}
				flights := newFlights(s, p)
				ensure := func(ctx context.Context, uid types.UID) {
					told[uid] = &events{}
					puller, err := New(Options{Images: s, Progress: p, Secrets: secrets{}, Recorder: told[uid], Clock: clock.RealClock{}})
					require.NoError(t, err)
					puller.flights = flights
					pod, container := podOf("public:1", corev1.PullAlways)
					go func() { _, _ = puller.Ensure(ctx, pod, container) }()
				}
				short, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Second)
				defer cancel()
				ensure(t.Context(), "stays")
				ensure(short, "leaves")
				time.Sleep(23 * time.Minute)
				close(s.hold)
				time.Sleep(time.Hour)

				var want []string
				for _, amount := range c.told {
					want = append(want, `Normal Pulling Still pulling image "public:1" after `+amount)
				}
				stays, leaves := told["stays"].take(), told["leaves"].take()
				require.Equal(t, want, stays[1:len(stays)-1])
				require.Contains(t, stays[len(stays)-1], "Successfully pulled")
				require.Equal(t, want[:5], leaves[1:])
				require.EqualValues(t, len(c.told), p.asked.Load(), "asked once for all, and no more when it is pulled")
				require.Len(t, s.pulled(), 1)
			})
		})
	}
}

func TestShortPullIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		p := &progress{}
		f.flights = newFlights(f.service, p)
		_, err := f.ensure("public:1", corev1.PullAlways)
		require.NoError(t, err)
		f.clock.Step(time.Hour)
		synctest.Wait()
		require.Zero(t, p.asked.Load())
		require.Len(t, f.events.take(), 2)
	})
}
