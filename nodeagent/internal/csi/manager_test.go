package csi

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/mount-utils"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

const (
	patience = 2 * time.Minute
	wink     = 5 * time.Millisecond
	name     = "disk.example.com"
)

// api are the objects of a test.
type api struct {
	mu          sync.Mutex
	drivers     map[string]*storagev1.CSIDriver
	secrets     map[string]*corev1.Secret
	attachments map[string]*storagev1.VolumeAttachment
	tokens      error
}

func (a *api) CSIDriver(_ context.Context, name string) (*storagev1.CSIDriver, error) {
	return found(a, a.drivers, name)
}

func (a *api) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	return found(a, a.secrets, namespace+"/"+name)
}

func (a *api) VolumeAttachment(_ context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return found(a, a.attachments, name)
}

func (a *api) Token(_ context.Context, _, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	answer := r.DeepCopy()
	answer.Status.Token = "token-of-" + account
	return answer, a.tokens
}

func found[T any](a *api, all map[string]*T, name string) (*T, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one := all[name]; one != nil {
		return one, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("any"), name)
}

// fixture is a manager, its drivers and an API.
type fixture struct {
	*Manager
	t    *testing.T
	dir  string
	boot string
	// called is the node's name, "ai-1" if it is empty.
	called string
	api    *api
	node   *corev1.Node
	stop   func()
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test mounts")
	}
	require.Zero(t, os.Geteuid(), "these tests mount: run them as root, or leave them out with -short")
	dir, err := os.MkdirTemp("", "csi") // the path of a socket has 107 bytes at most
	require.NoError(t, err)
	f := &fixture{t: t, dir: dir, boot: "one", node: &corev1.Node{}, api: &api{
		drivers: map[string]*storagev1.CSIDriver{name: {ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}}},
		secrets: map[string]*corev1.Secret{}, attachments: map[string]*storagev1.VolumeAttachment{},
	}}
	t.Cleanup(func() {
		f.stop()
		for _, point := range csitest.Below(dir) {
			_ = exec.Command("umount", "--lazy", point).Run()
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	f.start()
	return f
}

// start is an agent that begins to live.
func (f *fixture) start() {
	f.t.Helper()
	drivers := NewDrivers("reserved.example.com")
	m, err := New(Options{Dir: f.dir, Node: cmp.Or(f.called, "ai-1"), Boot: f.boot, Drivers: drivers, Mounter: mount.New("")})
	require.NoError(f.t, err)
	f.Manager = m
	watcher := &pluginregistration.Watcher{Dir: filepath.Join(f.dir, "plugins_registry"), Handlers: map[string]pluginregistration.Handler{"CSIPlugin": drivers}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = watcher.Run(ctx) })
	running.Go(func() { _ = m.Run(ctx) })
	f.stop = func() { cancel(); running.Wait() }
}

// serve starts the driver and waits until it is registered.
func (f *fixture) serve(d *csitest.Driver) {
	f.t.Helper()
	d.Serve(f.t)
	f.registered(d)
}

func (f *fixture) registered(d *csitest.Driver) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { _, err := f.driver(d.Name); return err == nil }, patience, wink, "%v", d.Told())
}

func newDriver(t *testing.T) (*fixture, *csitest.Driver) {
	t.Helper()
	f := newFixture(t)
	d := csitest.New(t, f.dir, name)
	d.Volume(t, "vol-1", map[string]string{"hello.txt": "hello"})
	f.serve(d)
	return f, d
}

func volume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-1"},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, MountOptions: []string{"noatime"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: name, VolumeHandle: "vol-1", FSType: "ext4", VolumeAttributes: map[string]string{"share": "s"},
			}},
		},
	}
}

func (f *fixture) request(uid string) Request {
	return Request{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod-" + uid, UID: types.UID(uid)},
			Spec:       corev1.PodSpec{ServiceAccountName: "sa"},
		},
		Claim: "claim", Volume: volume(), Objects: f.api, Node: func() *corev1.Node { return f.node },
		Own: func(string) error { return nil },
	}
}

func (f *fixture) mount(r Request) string {
	f.t.Helper()
	path, err := f.Mount(f.t.Context(), r)
	require.NoError(f.t, err)
	return path
}

// clean waits until nothing is left of any volume.
func (f *fixture) clean() {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		staged, err := f.staged()
		return err == nil && len(staged) == 0
	}, patience, wink, "nothing is staged")
	require.Empty(f.t, csitest.Below(f.dir))
	left, err := filepath.Glob(filepath.Join(f.dir, "p*s", "*"))
	require.NoError(f.t, err)
	for _, path := range left {
		base := filepath.Base(path)
		require.True(f.t, strings.HasSuffix(base, ".example.com") || base == "kubernetes.io", "%s is left", path)
	}
	inUse, err := f.InUse()
	require.NoError(f.t, err)
	require.Empty(f.t, inUse)
}

func read1(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func TestTwoPodsShareAVolume(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	one, two := f.mount(f.request("one")), f.mount(f.request("two"))
	require.Equal(t, filepath.Join(f.dir, "pods/one/volumes/kubernetes.io~csi/pv-1/mount"), one)
	require.NoError(t, os.WriteFile(filepath.Join(one, "new.txt"), []byte("new"), 0o600))
	require.Equal(t, "new", read1(t, filepath.Join(two, "new.txt")))
	require.Equal(t, one, f.mount(f.request("one")), "what is there is not made again")
	staged, published := d.Calls(csitest.Stage), d.Calls(csitest.Publish)
	require.Len(t, staged, 1)
	require.Len(t, published, 2)
	require.Equal(t, "vol-1", staged[0].Staged.VolumeId)
	require.Equal(t, map[string]string{"share": "s"}, staged[0].Staged.VolumeContext)
	require.Equal(t, staged[0].Staged.StagingTargetPath, published[0].Published.StagingTargetPath)
	require.Equal(t, "ext4", published[0].Published.VolumeCapability.GetMount().FsType)
	require.Equal(t, []string{"noatime"}, published[0].Published.VolumeCapability.GetMount().MountFlags)

	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.Equal(t, "hello", read1(t, filepath.Join(two, "hello.txt")))
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Equal(t, []types.UID{"two"}, uids)
	require.Empty(t, d.Calls(csitest.Unstage))
	require.NoError(t, f.Unmount(t.Context(), "two"))
	f.clean()
	require.Len(t, d.Calls(csitest.Unstage), 1)
}

func TestDriverThatDoesNotStage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := csitest.New(t, f.dir, name)
	d.Can = nil
	d.Volume(t, "vol-1", nil)
	f.serve(d)
	r := f.request("one")
	r.ReadOnly = true
	require.Error(t, os.WriteFile(filepath.Join(f.mount(r), "x"), nil, 0o600))
	require.Empty(t, d.Calls(csitest.Stage))
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
	require.Empty(t, d.Calls(csitest.Unstage))
}

// What the CSIDriver asks for is what the driver gets.
func TestWhatTheDriverIsTold(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	spec := &f.api.drivers[name].Spec
	spec.PodInfoOnMount, spec.TokenRequests = ptr.To(true), []storagev1.TokenRequest{{Audience: "vault"}}
	f.mount(f.request("one"))
	got := d.Calls(csitest.Publish)[0].Published
	require.Equal(t, "pod-one", got.VolumeContext["csi.storage.k8s.io/pod.name"])
	require.Equal(t, "false", got.VolumeContext["csi.storage.k8s.io/ephemeral"])
	var tokens map[string]authenticationv1.TokenRequestStatus
	require.NoError(t, json.Unmarshal([]byte(got.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"]), &tokens))
	require.Equal(t, "token-of-sa", tokens["vault"].Token)
	require.Equal(t, "s", got.VolumeContext["share"])

	spec.ServiceAccountTokenInSecrets = ptr.To(true)
	f.mount(f.request("two"))
	got = d.Calls(csitest.Publish)[1].Published
	require.NotContains(t, got.VolumeContext, "csi.storage.k8s.io/serviceAccount.tokens")
	require.Contains(t, got.Secrets, "csi.storage.k8s.io/serviceAccount.tokens")

	f.api.tokens = apierrors.NewForbidden(corev1.Resource("serviceaccounts/token"), "sa", nil)
	_, err := f.Mount(t.Context(), f.request("three"))
	require.ErrorContains(t, err, `wants a token of the pod's service account "ns/sa"`)

	spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}
	_, err = f.Mount(t.Context(), f.request("four"))
	require.ErrorContains(t, err, "no volumeLifecycleMode Persistent")
}

func TestDriverIsCalledAgain(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	again := f.request("one")
	again.Again = true
	f.mount(again)
	require.Empty(t, d.Calls(csitest.Publish), "what a pod has lost is not made again")
	f.api.drivers[name].Spec.RequiresRepublish = ptr.To(true)
	path := f.mount(f.request("one"))
	there, ok, err := f.Published("one", "claim")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, Published{Path: path, Again: true}, there)
	f.mount(again)
	require.Len(t, d.Calls(csitest.Publish), 2)
	// What fails then leaves what is mounted as it is (kubernetes#121271).
	d.Fail(csitest.Publish, status.Error(codes.Internal, "broken"))
	_, err = f.Mount(t.Context(), again)
	require.ErrorContains(t, err, "broken")
	require.Equal(t, path, f.mount(f.request("one")))
	require.Equal(t, "hello", read1(t, filepath.Join(path, "hello.txt")))
}

func TestWrongSecret(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	d.Secret = "the right one"
	r := f.request("one")
	r.Volume.Spec.CSI.NodeStageSecretRef = &corev1.SecretReference{Namespace: "ns", Name: "keys"}
	_, err := f.Mount(t.Context(), r)
	require.ErrorContains(t, err, `nodeStageSecretRef: secret "keys" not found in namespace "ns"`)
	f.api.secrets["ns/keys"] = &corev1.Secret{Data: map[string][]byte{"key": []byte("wrongwrong")}}
	_, err = f.Mount(t.Context(), r)
	var staging *StageError
	require.ErrorAs(t, err, &staging)
	require.ErrorContains(t, err, "NodeStageVolume: Unauthenticated: the backend refuses key")
	require.NotContains(t, err.Error(), "wrongwrong")
	staged, err := f.staged()
	require.NoError(t, err)
	require.Empty(t, staged, "what came to nothing need not be undone")
	f.api.secrets["ns/keys"].Data["key"] = []byte("the right one")
	f.mount(r)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

func TestOnePodOnly(t *testing.T) {
	t.Parallel()
	f, _ := newDriver(t)
	one, two := f.request("one"), f.request("two")
	one.Volume.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	two.Volume.Spec.AccessModes = one.Volume.Spec.AccessModes
	f.mount(one)
	_, err := f.Mount(t.Context(), two)
	require.ErrorContains(t, err, "volume uses the ReadWriteOncePod access mode and is already in use by another pod")
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.mount(two)
}

// Who gave a call its time sees that it has run out when the call returns, though the
// driver, which was told the deadline, may be the first to say so.
func TestATimeThatRanOutIsTheCallers(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	defer d.Hold(csitest.Stage)()
	for range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := f.Mount(ctx, f.request("one"))
		require.Error(t, err)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		require.NotContains(t, err.Error(), "did not answer")
		cancel()
	}
}

// A driver that hangs is given up on, holds up nobody else, and is asked to undo what
// it may have done.
func TestDriverHangs(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	other := csitest.New(t, f.dir, "other.example.com")
	other.Volume(t, "vol-1", nil)
	f.serve(other)
	f.o.Within = 200 * time.Millisecond // in which a busy machine may not come to that call
	release := d.Hold(csitest.Stage)
	require.Eventually(t, func() bool {
		_, err := f.Mount(t.Context(), f.request("one"))
		return err != nil && strings.Contains(err.Error(), "CSI driver disk.example.com did not answer NodeStageVolume within 200ms")
	}, patience, wink)
	f.o.Within = patience
	before := len(d.Calls(csitest.Stage))
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, err := f.Mount(ctx, f.request("one")); done <- err }()
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Stage)) > before }, patience, wink)

	r := f.request("two")
	r.Volume.Spec.CSI.Driver = "other.example.com"
	f.api.drivers["other.example.com"] = f.api.drivers[name]
	f.mount(r)
	require.NoError(t, f.Unmount(t.Context(), "two"))

	cancel() // the pod is deleted
	require.Error(t, <-done)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	release()
	f.clean()
	require.NotEmpty(t, d.Calls(csitest.Unstage), "it may have staged the volume")
	require.Empty(t, d.Calls(csitest.Unpublish), "it was never asked to publish it")
}

func TestDriverGoneAndBack(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	r := f.request("one")
	r.Volume.Spec.CSI.Driver = "none.example.com"
	_, err := f.Mount(t.Context(), r)
	require.ErrorContains(t, err, "driver name none.example.com not found in the list of registered CSI drivers (registered on this machine: disk.example.com)")
	path := f.mount(f.request("one"))
	d.Stop()
	require.Eventually(t, func() bool { return len(f.Drivers().Registered()) == 0 }, patience, wink)
	there, ok, err := f.Published("one", "claim")
	require.NoError(t, err)
	require.True(t, ok, "its containers can be restarted")
	require.Equal(t, path, there.Path)
	err = f.Unmount(t.Context(), "one")
	require.ErrorContains(t, err, "none is registered on this machine")
	require.Equal(t, "hello", read1(t, filepath.Join(path, "hello.txt")))
	f.serve(d)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

func TestAttachedVolumes(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.api.drivers[name].Spec.AttachRequired = nil
	unique := corev1.UniqueVolumeName("kubernetes.io/csi/disk.example.com^vol-1")
	// The node status is written when it is asked for.
	go func() {
		for {
			select {
			case <-t.Context().Done():
				return
			case <-f.Changed():
				inUse, _ := f.InUse()
				f.api.mu.Lock()
				f.node = &corev1.Node{Status: corev1.NodeStatus{VolumesInUse: inUse}}
				f.api.mu.Unlock()
			}
		}
	}()
	r := f.request("one")
	r.Node = func() *corev1.Node { f.api.mu.Lock(); defer f.api.mu.Unlock(); return f.node }
	_, err := f.Mount(t.Context(), r)
	require.ErrorContains(t, err, "it is not attached to this node yet: there is no VolumeAttachment csi-")
	require.Equal(t, []corev1.UniqueVolumeName{unique}, r.Node().Status.VolumesInUse)
	attachment := &storagev1.VolumeAttachment{}
	f.api.attachments[attachmentName("vol-1", name, "ai-1")] = attachment
	_, err = f.Mount(t.Context(), r)
	require.ErrorContains(t, err, "does its external-attacher run in the cluster?")
	attachment.Status.AttachError = &storagev1.VolumeError{Message: "no such disk"}
	_, err = f.Mount(t.Context(), r)
	require.ErrorContains(t, err, "it can't be attached to this node: no such disk")
	require.Empty(t, d.Calls())
	attachment.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/x"}}
	f.mount(r)
	require.Equal(t, "/dev/x", d.Calls(csitest.Stage)[0].Staged.PublishContext["device"])
	require.Equal(t, "/dev/x", d.Calls(csitest.Publish)[0].Published.PublishContext["device"])

	// It is in use until it is unstaged, not until the pod is gone.
	release := d.Hold(csitest.Unstage)
	require.NoError(t, f.Unmount(t.Context(), "one"))
	inUse, err := f.InUse()
	require.NoError(t, err)
	require.Equal(t, []corev1.UniqueVolumeName{unique}, inUse)
	release()
	f.clean()
	require.Eventually(t, func() bool { return len(r.Node().Status.VolumesInUse) == 0 }, patience, wink)
}

// told is what the driver is told first of its registration. That comes after
// the driver is known: whoever sees it known has to wait for it still.
func told(t *testing.T, d *csitest.Driver) *registration.RegistrationStatus {
	t.Helper()
	require.Eventually(t, func() bool { return len(d.Told()) > 0 }, patience, wink)
	return d.Told()[0]
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	require.True(t, told(t, d).PluginRegistered)
	for other, why := range map[string]string{
		"reserved.example.com": "the agent mounts the volumes of this driver itself",
		"a_b":                  "its name is none",
	} {
		refused := csitest.New(t, f.dir, other)
		refused.Serve(t)
		answer := told(t, refused)
		require.False(t, answer.PluginRegistered)
		require.Contains(t, answer.Error, why)
		refused.Stop()
	}
	err := f.Drivers().Register(t.Context(), pluginregistration.Plugin{Name: "new.example.com", Versions: []string{"2.0.0"}})
	require.ErrorContains(t, err, "it serves no CSI 1.x")
}
