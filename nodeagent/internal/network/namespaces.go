package network

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/mount-utils"
)

// Namespaces is where containerd mounts the network namespaces of sandboxes, and
// iproute2 those that have a name.
const Namespaces = "/run/netns"

// guardNamespaces makes dir a mount of its own, shared, before there is a sandbox.
// Else the first `ip netns add` after a boot does so, whenever somebody types it
// (create_netns_dir in iproute2's ip/ipnetns.c): it binds the folder over itself with
// all that is mounted in it. From then on the namespaces of pods are mounted twice,
// containerd takes away what lies on top, finds the file busy ("remove netns: unlinkat:
// device or resource busy"), and no pod that runs then can ever be ended.
//
// A folder that is a mount already needs nothing. In one with namespaces it would be us
// who bring that about: it is left as it is.
func guardNamespaces(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as iproute2 makes it: who lists namespaces is no root
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	// iproute2 takes the same lock for the same.
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	own, others, err := mountsIn(dir)
	if err != nil || own != nil || len(others) > 0 {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind over itself", Path: dir, Err: err}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "share the mount", Path: dir, Err: err}
	}
	return nil
}

// Covered are the pods of sandboxes, NAMESPACE/NAME, that can't be ended since their network
// namespaces lie below a mount of the folder itself, where nobody gets at them.
func Covered(ctx context.Context, service criapi.RuntimeService) ([]string, error) {
	files, err := covered(Namespaces)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	all, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list the runtime's sandboxes: %w", err)
	}
	var pods []string
	for _, s := range all {
		answer, err := service.PodSandboxStatus(ctx, s.Id, true)
		its := func(file string) bool { return file == namespaceOf(answer) }
		if err != nil { // what containerd says once somebody has tried to end it names the file
			its = func(file string) bool { return strings.Contains(err.Error(), file) }
		}
		if slices.ContainsFunc(files, its) {
			pods = append(pods, s.GetMetadata().GetNamespace()+"/"+s.GetMetadata().GetName())
		}
	}
	return pods, nil
}

// namespaceOf is the file of a sandbox's network namespace; empty where it has none of
// its own.
func namespaceOf(answer *runtimeapi.PodSandboxStatusResponse) string {
	var info struct{ RuntimeSpec specs.Spec }
	if err := json.Unmarshal([]byte(answer.GetInfo()["info"]), &info); err != nil || info.RuntimeSpec.Linux == nil {
		return ""
	}
	for _, n := range info.RuntimeSpec.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace && n.Path != "" {
			return filepath.Base(n.Path)
		}
	}
	return ""
}

// covered are the files in dir that are mounted below a mount of dir itself.
func covered(dir string) ([]string, error) {
	own, others, err := mountsIn(dir)
	if err != nil || own == nil {
		return nil, err
	}
	var files []string
	for _, m := range others {
		if m.ParentID != own.ID {
			files = append(files, filepath.Base(m.MountPoint))
		}
	}
	return files, nil
}

// mountsIn is the mount of dir, the last if there are several, and those in it.
func mountsIn(dir string) (own *mount.MountInfo, others []mount.MountInfo, err error) {
	// The thread's own view: a test has its mounts in a namespace apart.
	all, err := mount.ParseMountInfo("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, nil, fmt.Errorf("read what is mounted: %w", err)
	}
	for _, m := range all {
		switch {
		case m.MountPoint == dir:
			own = &m
		case strings.HasPrefix(m.MountPoint, dir+"/"):
			others = append(others, m)
		}
	}
	return own, others, nil
}
