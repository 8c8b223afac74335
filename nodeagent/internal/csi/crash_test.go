package csi

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

// What was mounted in another boot is mounted anew.
func TestAfterABoot(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.mount(f.request("one"))
	f.stop()
	f.boot = "two"
	for _, point := range csitest.Below(f.dir) {
		require.NoError(t, exec.Command("umount", point).Run())
	}
	f.start()
	f.registered(d)
	_, ok, err := f.Published("one", "claim")
	require.NoError(t, err)
	require.False(t, ok)
	require.Equal(t, "hello", read1(t, filepath.Join(f.mount(f.request("one")), "hello.txt")))
	require.Len(t, d.Calls(csitest.Stage), 2)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

// An agent was killed before it had written down what it wanted.
func TestFolderWithoutARecord(t *testing.T) {
	t.Parallel()
	f, _ := newDriver(t)
	require.NoError(t, os.MkdirAll(f.volumeDir("one", "pv-1"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(f.volumeDir("one", "pv-1"), recordFile+".new"), []byte("{"), 0o600))
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

// Another kubelet's volumes on the same machine are its own.
func TestOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	for _, dir := range []string{f.volumeDir("theirs", "pv-9"), f.stagingDir(name, "vol-1")} {
		r := &record{Handle: "vol-1", Driver: name, Node: "another", dir: dir}
		require.NoError(t, r.note(wanted, "")) // which a kubelet does not write
	}
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids)
	_, err = f.Mount(t.Context(), f.request("one"))
	require.ErrorContains(t, err, "staged by another kubelet of this machine")
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.FileExists(t, filepath.Join(f.stagingDir(name, "vol-1"), recordFile))
	require.Empty(t, d.Calls())
}

// killed is the environment variable that makes this test's program an agent that
// mounts in the folder of the value, and is killed.
const killed = "CSI_TEST_AGENT"

// An agent that is killed between staging and publishing, in the middle of a call: the
// next one finds what was begun, goes on with it or undoes it.
func TestAgentIsKilled(t *testing.T) {
	if dir := os.Getenv(killed); dir != "" {
		mountAndHang(t, dir)
		return
	}
	t.Parallel()
	for _, gone := range []bool{false, true} {
		f, d := newDriver(t)
		f.stop()
		release := d.Hold(csitest.Publish)
		agent := exec.Command(os.Args[0], "-test.run=^TestAgentIsKilled$")
		agent.Env = append(os.Environ(), killed+"="+f.dir)
		require.NoError(t, agent.Start())
		require.Eventually(t, func() bool { return len(d.Calls(csitest.Publish)) == 1 }, patience, wink)
		require.NoError(t, agent.Process.Kill())
		_ = agent.Wait()
		release()

		f.start()
		f.registered(d)
		uids, err := f.PodUIDs()
		require.NoError(t, err)
		require.Equal(t, []types.UID{"one"}, uids)
		if !gone {
			require.Equal(t, "hello", read1(t, filepath.Join(f.mount(f.request("one")), "hello.txt")))
			require.Len(t, d.Calls(csitest.Stage), 1, "it was staged")
		}
		require.NoError(t, f.Unmount(t.Context(), "one"))
		f.clean()
		require.Len(t, d.Calls(csitest.Unpublish), 1)
		require.Len(t, d.Calls(csitest.Unstage), 1)
	}
}

func mountAndHang(t *testing.T, dir string) {
	t.Helper()
	f := &fixture{t: t, dir: dir, boot: "one", node: &corev1.Node{}, api: &api{
		drivers: map[string]*storagev1.CSIDriver{name: {Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}}},
	}}
	f.start()
	require.Eventually(t, func() bool { _, err := f.driver(name); return err == nil }, patience, wink)
	f.mount(f.request("one"))
}

// A volume that is staged for nobody goes when an agent starts, also if that takes
// more than one try.
func TestLeftOverIsUnstaged(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.mount(f.request("one"))
	f.stop()
	d.Fail(csitest.Unstage, status.Error(codes.Internal, "busy"))
	f.start()
	f.registered(d)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Unstage)) >= 2 }, patience, wink)
	f.stop()
	d.Fail(csitest.Unstage, nil)
	f.start()
	f.clean()
}
