package logrotation

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"
)

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// log is a container's log in a folder of its own; it is its runtime too.
type log struct {
	t      *testing.T
	clock  *testclock.FakeClock
	path   string
	state  runtimeapi.ContainerState
	broken error
}

func newLog(t *testing.T) *log {
	return &log{
		t: t, clock: testclock.NewFakeClock(start), path: filepath.Join(t.TempDir(), "0.log"),
		state: runtimeapi.ContainerState_CONTAINER_RUNNING,
	}
}

func (l *log) ReopenContainerLog(_ context.Context, id string) error {
	require.Equal(l.t, "id", id)
	if l.broken == nil {
		l.write("")
	}
	return l.broken
}

func (l *log) write(text string) {
	l.t.Helper()
	require.NoError(l.t, os.WriteFile(l.path, []byte(text), 0o640)) // its mode is kept
}

// pass runs one pass, a minute after the last.
func (l *log) pass() {
	l.t.Helper()
	r, err := New(Options{Runtime: l, MaxSize: 8, MaxFiles: 4, Clock: l.clock, Containers: func() []*runtimeapi.ContainerStatus {
		return []*runtimeapi.ContainerStatus{{Id: "id", State: l.state, LogPath: l.path}}
	}})
	require.NoError(l.t, err)
	l.clock.Step(time.Minute)
	r.pass(l.t.Context())
}

// has checks names after the log's own, and what is in them.
func (l *log) has(want map[string]string) {
	l.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(l.path))
	require.NoError(l.t, err)
	got := map[string]string{}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(filepath.Dir(l.path), e.Name()))
		require.NoError(l.t, err)
		var from io.Reader = f
		if strings.HasSuffix(e.Name(), compressed) {
			from, err = gzip.NewReader(f)
			require.NoError(l.t, err)
		}
		text, err := io.ReadAll(from)
		require.NoError(l.t, err)
		require.NoError(l.t, f.Close())
		info, err := e.Info()
		require.NoError(l.t, err)
		require.Equal(l.t, os.FileMode(0o640), info.Mode(), e.Name())
		got[strings.TrimPrefix(e.Name(), "0.log")] = string(text)
	}
	require.Equal(l.t, want, got)
}

func TestTheOldestGoes(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.write("small")
	l.pass()
	l.has(map[string]string{"": "small"})
	for _, text := range []string{"the first", "the second", "the third", "the fourth"} {
		l.write(text)
		l.pass()
	}
	l.has(map[string]string{
		"": "", ".20261124-030500": "the fourth",
		".20261124-030400.gz": "the third", ".20261124-030300.gz": "the second",
	})
	files, err := Files(l.path)
	require.NoError(t, err)
	require.Len(t, files, 4)
	require.Equal(t, l.path, files[3], "the current one is the newest")
	require.NoError(t, Remove(l.path))
	l.has(map[string]string{})
}

func TestAnotherContainersLogIsNotTouched(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.write("large enough")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(l.path), "10.log"), nil, 0o640))
	require.NoError(t, Remove(l.path))
	entries, err := os.ReadDir(filepath.Dir(l.path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestADeadContainersLogStays(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.state = runtimeapi.ContainerState_CONTAINER_EXITED
	l.write("large enough")
	l.pass()
	l.has(map[string]string{"": "large enough"})
}

func TestAnInterruptedPassIsMended(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.write("large enough")
	l.pass()
	// Killed while compressing: half an archive, or the whole one beside its source.
	rotated := l.path + ".20261124-030100"
	require.NoError(t, os.WriteFile(rotated+unfinished, []byte("half"), 0o600))
	l.write("and another")
	l.pass()
	l.has(map[string]string{"": "", ".20261124-030200": "and another", ".20261124-030100.gz": "large enough"})
	require.NoError(t, os.WriteFile(rotated, []byte("large enough"), 0o600))
	l.write("and a third")
	l.pass()
	l.has(map[string]string{
		"": "", ".20261124-030300": "and a third",
		".20261124-030200.gz": "and another", ".20261124-030100.gz": "large enough",
	})
	// Killed between renaming and reopening.
	require.NoError(t, os.Remove(l.path))
	l.pass()
	require.FileExists(t, l.path)
}

func TestALogThatCannotBeReopenedKeepsItsName(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.broken = errors.New("no such container")
	l.write("large enough")
	l.pass()
	l.has(map[string]string{"": "large enough"})
}
