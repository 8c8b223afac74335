package fuse

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
)

const patience = time.Minute

// fixture is a mount of a bucket of a real gateway by a real helper.
type fixture struct {
	Mount
	t       *testing.T
	gateway *s3test.Gateway
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	gateway := s3test.Start(t)
	require.Zero(t, os.Geteuid(), "these tests mount: run them as root, or leave them out with -short")
	gateway.Bucket(t, "models", map[string]string{"hello.txt": "hello"})
	dir := t.TempDir()
	f := &fixture{Mount: Mount{Target: filepath.Join(dir, "target"), Dir: filepath.Join(dir, "own")}, t: t, gateway: gateway}
	t.Cleanup(func() { f.remove(context.Background()) })
	return f
}

// free does what needs a mount that nobody uses. A process that another test is just starting
// has what is open here, until it has begun.
func (f *fixture) free(do func() error) {
	f.t.Helper()
	var err error
	require.Eventually(f.t, func() bool { err = do(); return !errors.Is(err, unix.EBUSY) }, patience, look)
	require.NoError(f.t, err)
}

// remove reports whether the helper ended well.
func (f *fixture) remove(ctx context.Context) (well bool) {
	f.t.Helper()
	f.free(func() (err error) { well, err = f.Remove(ctx); return err })
	return well
}

func (f *fixture) command(bucket string) Command {
	program, err := exec.LookPath("s3fs")
	require.NoError(f.t, err, "the distribution's package s3fs is needed")
	return Command{
		Program: program,
		Args: []string{
			bucket, f.Beside(), "-f", "-o", "url=http://" + f.gateway.Address, "-o", "passwd_file=" + f.PasswordFile(),
			"-o", "use_path_request_style", "-o", "allow_other", "-o", "dbglevel=err", "-o", "tmpdir=" + f.Spool(),
		},
		Password: []byte(s3test.KeyID + ":" + s3test.KeySecret + "\n"),
	}
}

func (f *fixture) make() {
	f.t.Helper()
	require.NoError(f.t, f.Make(f.t.Context(), f.command("models")))
}

func (f *fixture) requireLive(want bool) {
	f.t.Helper()
	live, err := f.Live()
	require.NoError(f.t, err)
	require.Equal(f.t, want, live)
}

func (f *fixture) requireRead(path string) {
	f.t.Helper()
	raw, err := os.ReadFile(filepath.Join(path, "hello.txt"))
	require.NoError(f.t, err)
	require.Equal(f.t, "hello", string(raw))
}

// requireNothing is there of the mount: no process, mount or file.
func (f *fixture) requireNothing() {
	f.t.Helper()
	helpers, err := f.helpers()
	require.NoError(f.t, err)
	require.Empty(f.t, helpers)
	require.NoDirExists(f.t, f.Dir)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(f.t, err)
	require.NotContains(f.t, string(mounts), filepath.Dir(f.Dir))
}

func (f *fixture) kill() {
	f.t.Helper()
	helpers, err := f.helpers()
	require.NoError(f.t, err)
	require.Len(f.t, helpers, 1)
	require.NoError(f.t, helpers[0].Kill())
	require.NoError(f.t, f.Ended(f.t.Context()))
}

func TestMountIsMadeAndRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.requireLive(false)
	f.make()
	f.requireLive(true)
	f.requireRead(f.Target)
	info, err := os.Stat(f.PasswordFile())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	require.NoError(t, os.WriteFile(filepath.Join(f.Target, "new.txt"), []byte("new"), 0o600))
	object, err := f.gateway.Object("models", "new.txt")
	require.NoError(t, err)
	require.Equal(t, "new", object)

	// Nobody finds the secret by looking at the processes.
	helpers, err := f.helpers()
	require.NoError(t, err)
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(helpers[0].Pid), file))
		require.NoError(t, err)
		require.NotContains(t, string(text), s3test.KeySecret)
		require.NotContains(t, string(text), s3test.KeyID)
	}
	// Nor in its core, if it crashes.
	limits, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(helpers[0].Pid), "limits"))
	require.NoError(t, err)
	require.Regexp(t, `Max core file size +0 +0 `, string(limits))
	cored, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(helpers[0].Pid), "coredump_filter"))
	require.NoError(t, err)
	require.Equal(t, "00000000", strings.TrimSpace(string(cored)))
	require.True(t, f.remove(t.Context()))
	f.requireNothing()
	require.False(t, f.remove(t.Context()), "it is idempotent, and there was no helper")
}

// Whoever has the target bound with propagation sees the new mount over the dead one.
func TestDeadHelperIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	bound := filepath.Join(t.TempDir(), "bound")
	require.NoError(t, os.Mkdir(bound, 0o700))
	require.NoError(t, unix.Mount(f.Target, bound, "", unix.MS_BIND, ""))
	t.Cleanup(func() { f.free(func() error { return unmountAll(bound) }) })
	require.NoError(t, unix.Mount("", bound, "", unix.MS_SLAVE, ""))
	f.requireRead(bound)

	ended := make(chan error, 1)
	go func() { ended <- f.Ended(t.Context()) }()
	f.kill()
	require.NoError(t, <-ended)
	f.requireLive(false)
	_, err := os.ReadFile(filepath.Join(bound, "hello.txt"))
	require.ErrorIs(t, err, syscall.ENOTCONN)

	f.make()
	f.requireLive(true)
	f.requireRead(f.Target)
	f.requireRead(bound)
	f.free(func() error { return unmountAll(bound) })
	f.kill()
	require.False(t, f.remove(t.Context()), "it did not serve to the last")
}

func TestEndedIsToldOfCancellation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Ended(ctx) }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	f.requireLive(true)
}

func TestFailureLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	err := f.Make(t.Context(), f.command("missing"))
	var failed *FailedError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Said, "NoSuchBucket")
	f.requireNothing()
}

func TestCancelledMakeLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- f.Make(ctx, f.command("models")) }()
	require.Eventually(t, func() bool {
		helpers, err := f.helpers()
		return err == nil && len(helpers) == 1 || len(failed) > 0
	}, patience, look)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	f.requireNothing()
}

// As kill -9 leaves it: a helper beside the target, which is not mounted, or a dead
// mount there.
func TestHalfAMountIsNoMount(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	require.NoError(t, unix.Mount(f.Target, f.Beside(), "", unix.MS_BIND, ""))
	f.requireLive(true) // as far as it can get before the end
	beside, err := top(f.Beside())
	require.NoError(t, err)
	require.Nil(t, beside)

	f.kill()
	other := &fixture{Mount: Mount{Target: filepath.Join(t.TempDir(), "other"), Dir: f.Dir}, t: t, gateway: f.gateway}
	require.NoError(t, other.Make(t.Context(), other.command("models")))
	require.NoError(t, unix.Mount(other.Target, f.Beside(), "", unix.MS_BIND, ""))
	require.NoError(t, unmountAll(other.Target))
	f.requireLive(false) // a living helper, but beside a dead mount
	f.make()
	f.requireLive(true)
	f.requireRead(f.Target)
}

// s3fs hangs at its end if its server is gone; that holds up nobody for ever.
// Nothing is read here: a process that another test starts would have it open too, and hang
// where it closes that, before it has begun.
func TestRemoveWithoutServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	f.gateway.Stop()
	f.remove(t.Context())
	f.requireNothing()
}

// What a user sees closed is in the bucket, whatever became of the server meanwhile.
func TestNothingIsLostWhenTheServerRestarts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	content := strings.Repeat("0123456789abcdef", 1<<20)
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(filepath.Join(f.Target, "large"), []byte(content), 0o600) }()
	for range 3 {
		f.gateway.Stop()
		f.gateway.Run(t)
	}
	require.NoError(t, <-written)
	object, err := f.gateway.Object("models", "large")
	require.NoError(t, err)
	require.True(t, object == content, "the object is what was written")
}

func TestBusyMountStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.make()
	open, err := os.Open(filepath.Join(f.Target, "hello.txt"))
	require.NoError(t, err)
	_, err = f.Remove(t.Context())
	require.ErrorIs(t, err, syscall.EBUSY)
	f.requireLive(true)
	require.NoError(t, open.Close())
	require.True(t, f.remove(t.Context()))
}
