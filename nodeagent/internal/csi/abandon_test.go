package csi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

// The machine is unbound while a driver is gone: what it has mounted is taken away when
// it is back, by the next agent, under another name of the machine.
func TestAbandonedVolumesGoWhenTheDriverIsBack(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	path := f.mount(f.request("one"))
	d.Stop()
	require.Eventually(t, func() bool { return len(f.Drivers().Registered()) == 0 }, patience, wink)
	require.Error(t, f.Unmount(t.Context(), "one"))
	require.NoError(t, f.Abandon(t.Context(), "one"))
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids, "nobody needs to end it any more")
	require.Equal(t, "hello", read1(t, filepath.Join(path, "hello.txt")))
	f.stop()
	f.called = "ai-2"
	f.start()
	f.serve(d)
	f.clean()
	require.Len(t, d.Calls(csitest.Unpublish), 1)
	require.Len(t, d.Calls(csitest.Unstage), 1)
	require.NoDirExists(t, filepath.Join(f.podsDir(), "one"))
}

// A pod that was ended since nobody answered runs again: its volume is not taken away
// under it.
func TestAbandonedPodComesBack(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	path := f.mount(f.request("one"))
	d.Fail(csitest.Unpublish, status.Error(codes.Internal, "busy"))
	require.NoError(t, f.Abandon(t.Context(), "one"))
	_, there, err := f.Published("one", "claim")
	require.NoError(t, err)
	require.False(t, there, "it is to be mounted again")
	require.Equal(t, path, f.mount(f.request("one")))
	d.Fail(csitest.Unpublish, nil)
	before := len(d.Calls(csitest.Unpublish))
	r := &record{Driver: name, Handle: "vol-1", Abandoned: yes, dir: f.volumeDir("one", "pv-1")}
	require.NoError(t, f.unpublishAbandoned(t.Context(), r), "as Run, which has seen it before")
	require.Len(t, d.Calls(csitest.Unpublish), before)
	_, there, err = f.Published("one", "claim")
	require.NoError(t, err)
	require.True(t, there)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

// What was staged under an earlier name of the machine is no other kubelet's.
func TestStagedUnderAnEarlierName(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.stop()
	dir := f.stagingDir(name, "vol-1")
	require.NoError(t, (&record{Handle: "vol-1", Driver: name, Node: "ai-0", dir: dir}).note(done, "one"))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "globalmount"), 0o750))
	f.start()
	f.registered(d)
	f.clean()
	require.NotEmpty(t, d.Calls(csitest.Unstage))

	f.stop() // and where a pod comes before Run has come to it
	require.NoError(t, (&record{Handle: "vol-1", Driver: name, Node: "ai-0", dir: dir}).note(done, "one"))
	f.start()
	f.registered(d)
	f.mount(f.request("one"))
	staged, err := read(dir)
	require.NoError(t, err)
	require.Equal(t, "ai-1", staged.Node)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

// A record that can't be read is told of and left; the others go their way.
func TestADamagedRecordStopsNobody(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	damage := func(dir string) {
		require.NoError(t, os.MkdirAll(dir, 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o600))
	}
	lost := f.volumeDir("lost", "pv-9")
	damage(lost)
	damage(f.stagingDir(name, "vol-9"))
	f.mount(f.request("one"))
	_, err := f.InUse()
	require.NoError(t, err)
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Equal(t, []types.UID{"one"}, uids)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Unstage)) == 1 }, patience, wink, "nothing is mounted that nobody knows of")
	require.FileExists(t, filepath.Join(lost, recordFile))

	// Of what is mounted nobody knows which volume it is: it stays, and so does all that is
	// staged.
	path := f.mount(f.request("two"))
	damage(filepath.Dir(path))
	err = f.Unmount(t.Context(), "two")
	require.ErrorContains(t, err, "is mounted at "+path+" nobody knows: unmount it by hand")
	require.ErrorContains(t, f.unstage(t.Context(), &record{Driver: name, Handle: "vol-1", dir: f.stagingDir(name, "vol-1")}), "nobody knows")
	require.NoError(t, f.Abandon(t.Context(), "two"), "an unbinding goes on")
	require.Equal(t, "hello", read1(t, filepath.Join(path, "hello.txt")))
	require.Eventually(t, func() bool { return f.o.Mounter.Unmount(path) == nil }, patience, wink)
	require.NoError(t, f.Unmount(t.Context(), "two"))
	require.NoError(t, f.Unmount(t.Context(), "lost"))
	require.NoError(t, os.RemoveAll(f.stagingDir(name, "vol-9")))
	f.clean()
}
