package binding

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each answer says what time it is, also a refusal; the kernel counts from there, and an
// agent that starts again in the same boot knows it still.
func TestWhatTimeItIsAtTheHub(t *testing.T) {
	t.Parallel()
	date := start.UTC().Truncate(time.Second)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date.Format(http.TimeFormat))
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	store := testStore(t)
	up, writes := time.Hour, 0
	c := &hubClock{running: func() time.Duration { return up }, save: func(at time.Time) error {
		writes++
		if writes == 1 {
			return errors.New("no space left on device")
		}
		return store.SaveStarted("this boot", at)
	}}
	ask := func() {
		t.Helper()
		answer, err := (&http.Client{Transport: c.wrap(http.DefaultTransport)}).Get(server.URL)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
	}
	_, heard := c.now()
	require.False(t, heard)
	require.Zero(t, c.last())
	ask()
	require.Equal(t, 1, writes, "in vain")
	up += 30 * time.Minute // most of it asleep
	now, heard := c.now()
	require.True(t, heard)
	require.True(t, date.Add(30*time.Minute).Equal(now), "%s", now)
	require.True(t, date.Equal(c.last()))

	date, up = date.Add(31*time.Minute), up+31*time.Minute-30*time.Minute
	ask()
	require.Equal(t, 2, writes, "tried again")
	ask()
	require.Equal(t, 2, writes, "the same clock still")
	date = date.Add(time.Hour) // somebody has set the hub's
	ask()
	require.Equal(t, 3, writes)

	again, err := store.Started("this boot")
	require.NoError(t, err)
	require.True(t, date.Add(-up).Equal(again))
	none, err := store.Started("the next boot")
	require.NoError(t, err)
	require.Zero(t, none)
	require.Positive(t, running())
}
