// Package csitest gives tests a CSI driver that really mounts: a gRPC server on a
// socket of its own, registered as node-driver-registrar does it, whose volumes are
// folders that it binds to where it is told.
package csitest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// The RPCs that a test may count, hold up and fail.
const (
	Stage     = "NodeStageVolume"
	Publish   = "NodePublishVolume"
	Unpublish = "NodeUnpublishVolume"
	Unstage   = "NodeUnstageVolume"
	Stats     = "NodeGetVolumeStats"
)

// Driver is a driver that a test has for itself.
type Driver struct {
	csipb.UnimplementedNodeServer
	registration.UnsafeRegistrationServer

	// Name is also the beginning of its socket's.
	Name string
	// Data holds a folder for each volume.
	Data string
	// Topology, MaxVolumes and Can are what it says of itself. Set them before Serve.
	Topology   map[string]string
	MaxVolumes int64
	Can        []csipb.NodeServiceCapability_RPC_Type
	// Usage is what it says of how full each volume is; nil: what statfs(2) says.
	Usage []*csipb.VolumeUsage
	// Secret, if it is not empty, must come as "key" with what it stages, or publishes if
	// it does not stage.
	Secret string

	dir     string // the kubelet's
	mu      sync.Mutex
	calls   []Call
	fail    map[string]error
	held    map[string]chan struct{}
	busy    map[string]chan struct{} // volumes that a call is at
	servers []*grpc.Server
	status  []*registration.RegistrationStatus
}

// Call is one that was made.
type Call struct {
	Method string
	// Staged, Published and Measured are the requests, where it was one of those.
	Staged    *csipb.NodeStageVolumeRequest
	Published *csipb.NodePublishVolumeRequest
	Measured  *csipb.NodeGetVolumeStatsRequest
}

// New makes a driver that stages volumes. It serves when Serve is called, and its
// mounts are gone when the test ends.
func New(t testing.TB, kubeletDir, name string) *Driver {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test mounts")
	}
	d := Make(kubeletDir, name, t.TempDir())
	t.Cleanup(d.Stop)
	return d
}

// Make is New for a program.
func Make(kubeletDir, name, data string) *Driver {
	return &Driver{
		Name: name, Data: data, dir: kubeletDir, fail: map[string]error{}, held: map[string]chan struct{}{}, busy: map[string]chan struct{}{},
		Can: []csipb.NodeServiceCapability_RPC_Type{csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME},
	}
}

// Serve begins to serve, and to ask to be registered.
func (d *Driver) Serve(t testing.TB) {
	t.Helper()
	require.NoError(t, d.Listen(t.Context()))
}

// Listen is Serve for a program.
func (d *Driver) Listen(ctx context.Context) error {
	node, err := listen(ctx, filepath.Join(d.dir, "plugins", d.Name, "csi.sock"), func(s *grpc.Server) { csipb.RegisterNodeServer(s, d) })
	if err != nil {
		return err
	}
	// Last: who sees this socket calls the other.
	registrar, err := listen(ctx, filepath.Join(d.dir, "plugins_registry", d.Name+"-reg.sock"), func(s *grpc.Server) { registration.RegisterRegistrationServer(s, d) })
	if err != nil {
		node.Stop()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers = append(d.servers, node, registrar)
	return nil
}

func listen(ctx context.Context, path string, register func(*grpc.Server)) (*grpc.Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // as a kubelet's
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	register(server)
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// Stop ends the driver, and its sockets with it. What it has mounted stays: a call that is
// held up ends with its connection and is not let go, or it would be done in between.
func (d *Driver) Stop() {
	d.mu.Lock()
	servers := d.servers
	d.servers = nil
	clear(d.held)
	d.mu.Unlock()
	for _, s := range servers {
		s.Stop()
	}
}

// Volume makes a volume with files in it, and returns its folder.
func (d *Driver) Volume(t testing.TB, handle string, files map[string]string) string {
	t.Helper()
	folder := filepath.Join(d.Data, handle)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	return folder
}

// Hold has calls of a method wait until release is called, or their time is over.
func (d *Driver) Hold(method string) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.held[method] = gate
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.held[method] == gate {
			close(gate)
			delete(d.held, method)
		}
	}
}

// Fail has calls of a method fail; nil ends that.
func (d *Driver) Fail(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[method] = err
}

// Calls are those of the methods so far, of all if none is named.
func (d *Driver) Calls(methods ...string) []Call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.calls), func(c Call) bool { return len(methods) > 0 && !slices.Contains(methods, c.Method) })
}

// Told is what the driver was told of its registration.
func (d *Driver) Told() []*registration.RegistrationStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.status)
}

// begin notes a call, and holds it up or fails it if the test says so. Calls for one
// volume come one after the other: one that was given up may still be at work. done
// is to be called at its end.
func (d *Driver) begin(ctx context.Context, volume string, c Call) (done func(), err error) {
	mine := make(chan struct{})
	for {
		d.mu.Lock()
		before := d.busy[volume]
		if before == nil {
			break
		}
		d.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	d.busy[volume] = mine
	d.calls = append(d.calls, c)
	gate, failure := d.held[c.Method], d.fail[c.Method]
	d.mu.Unlock()
	done = func() {
		d.mu.Lock()
		delete(d.busy, volume)
		d.mu.Unlock()
		close(mine)
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			failure = status.FromContextError(ctx.Err()).Err()
		}
	}
	if failure != nil {
		done()
	}
	return done, failure
}

// GetInfo says who the driver is.
func (d *Driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: d.Name, SupportedVersions: []string{"1.0.0"},
		Endpoint: filepath.Join(d.dir, "plugins", d.Name, "csi.sock"),
	}, nil
}

// NotifyRegistrationStatus notes what came of it.
func (d *Driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = append(d.status, s)
	return &registration.RegistrationStatusResponse{}, nil
}

// NodeGetInfo says what the machine is to the driver.
func (d *Driver) NodeGetInfo(context.Context, *csipb.NodeGetInfoRequest) (*csipb.NodeGetInfoResponse, error) {
	answer := &csipb.NodeGetInfoResponse{NodeId: "machine-of-" + d.Name, MaxVolumesPerNode: d.MaxVolumes}
	if d.Topology != nil {
		answer.AccessibleTopology = &csipb.Topology{Segments: d.Topology}
	}
	return answer, nil
}

// NodeGetCapabilities says what the driver can do.
func (d *Driver) NodeGetCapabilities(context.Context, *csipb.NodeGetCapabilitiesRequest) (*csipb.NodeGetCapabilitiesResponse, error) {
	answer := &csipb.NodeGetCapabilitiesResponse{}
	for _, kind := range d.Can {
		answer.Capabilities = append(answer.Capabilities, &csipb.NodeServiceCapability{
			Type: &csipb.NodeServiceCapability_Rpc{Rpc: &csipb.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return answer, nil
}

func (d *Driver) stages() bool {
	return slices.Contains(d.Can, csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
}

// unlock is the driver's log-in: it repeats what it was given, as bad drivers do.
func (d *Driver) unlock(secrets map[string]string) error {
	if got := secrets["key"]; d.Secret != "" && got != d.Secret {
		return status.Errorf(codes.Unauthenticated, "the backend refuses key %q", got)
	}
	return nil
}

// NodeStageVolume binds the volume to where it is staged.
func (d *Driver) NodeStageVolume(ctx context.Context, r *csipb.NodeStageVolumeRequest) (*csipb.NodeStageVolumeResponse, error) {
	done, err := d.begin(ctx, r.VolumeId, Call{Method: Stage, Staged: r})
	if err != nil {
		return nil, err
	}
	defer done()
	if err := d.unlock(r.Secrets); err != nil {
		return nil, err
	}
	return &csipb.NodeStageVolumeResponse{}, bind(filepath.Join(d.Data, r.VolumeId), r.StagingTargetPath, false)
}

// NodePublishVolume binds the staged volume to a pod's.
func (d *Driver) NodePublishVolume(ctx context.Context, r *csipb.NodePublishVolumeRequest) (*csipb.NodePublishVolumeResponse, error) {
	done, err := d.begin(ctx, r.VolumeId, Call{Method: Publish, Published: r})
	if err != nil {
		return nil, err
	}
	defer done()
	source := filepath.Join(d.Data, r.VolumeId)
	if d.stages() {
		source = r.StagingTargetPath
	} else if err := d.unlock(r.Secrets); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.TargetPath, 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csipb.NodePublishVolumeResponse{}, bind(source, r.TargetPath, r.Readonly)
}

// NodeUnpublishVolume undoes NodePublishVolume, as often as it is asked.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, r *csipb.NodeUnpublishVolumeRequest) (*csipb.NodeUnpublishVolumeResponse, error) {
	done, err := d.begin(ctx, r.VolumeId, Call{Method: Unpublish})
	if err != nil {
		return nil, err
	}
	defer done()
	if err := unmount(r.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csipb.NodeUnpublishVolumeResponse{}, nil
}

// NodeUnstageVolume undoes NodeStageVolume, as often as it is asked.
func (d *Driver) NodeUnstageVolume(ctx context.Context, r *csipb.NodeUnstageVolumeRequest) (*csipb.NodeUnstageVolumeResponse, error) {
	done, err := d.begin(ctx, r.VolumeId, Call{Method: Unstage})
	if err != nil {
		return nil, err
	}
	defer done()
	return &csipb.NodeUnstageVolumeResponse{}, unmount(r.StagingTargetPath)
}

// NodeGetVolumeStats says how full the volume is. Calls that change one don't wait for it.
func (d *Driver) NodeGetVolumeStats(ctx context.Context, r *csipb.NodeGetVolumeStatsRequest) (*csipb.NodeGetVolumeStatsResponse, error) {
	done, err := d.begin(ctx, "figures of "+r.VolumePath, Call{Method: Stats, Measured: r})
	if err != nil {
		return nil, err
	}
	defer done()
	if d.Usage != nil {
		return &csipb.NodeGetVolumeStatsResponse{Usage: d.Usage}, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.VolumePath, &fs); err != nil {
		return nil, status.Errorf(codes.NotFound, "measure %s: %v", r.VolumePath, err)
	}
	usage := func(unit csipb.VolumeUsage_Unit, total, free, available uint64, size int64) *csipb.VolumeUsage {
		return &csipb.VolumeUsage{Unit: unit, Total: int64(total) * size, Used: int64(total-free) * size, Available: int64(available) * size}
	}
	return &csipb.NodeGetVolumeStatsResponse{Usage: []*csipb.VolumeUsage{
		usage(csipb.VolumeUsage_BYTES, fs.Blocks, fs.Bfree, fs.Bavail, fs.Bsize), usage(csipb.VolumeUsage_INODES, fs.Files, fs.Ffree, fs.Ffree, 1),
	}}, nil
}

// bind mounts source at target, unless something is mounted there.
func bind(source, target string, readOnly bool) error {
	if mounted(target) {
		return nil
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return status.Errorf(codes.Internal, "bind %s to %s: %v", source, target, err)
	}
	if readOnly {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return status.Errorf(codes.Internal, "make %s read-only: %v", target, err)
		}
	}
	return nil
}

func unmount(target string) error {
	if !mounted(target) {
		return nil
	}
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	// Between a test's fork(2) and exec(2) a process has open what another test had just read.
	for range 100 {
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	}
	if err != nil {
		return status.Errorf(codes.Internal, "unmount %s: %v", target, err)
	}
	return nil
}
