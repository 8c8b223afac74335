package podfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// EtcHosts is where a container reads host names, and the machine too.
const EtcHosts = "/etc/hosts"

// MountHosts writes the pod's /etc/hosts, one file for all its containers, and adds its
// mount, unless the container has a mount of its own there. Like the kubelet it writes
// anew at each start what a container has changed. What the
// machine's own names are is not for o to say.
func (f Files) MountHosts(pod *corev1.Pod, mounts []*runtimeapi.Mount, o crispec.HostsOptions) ([]*runtimeapi.Mount, error) {
	if slices.ContainsFunc(mounts, func(m *runtimeapi.Mount) bool { return path.Clean(m.ContainerPath) == EtcHosts }) {
		return mounts, nil
	}
	machine, err := os.ReadFile(f.HostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the machine's host names: %w", err)
	}
	o.Machine = string(machine)
	file := filepath.Join(f.Folder(pod.UID), "etc-hosts")
	if err := writeInPlace(file, crispec.Hosts(pod, o)); err != nil {
		return nil, fmt.Errorf("write the pod's host names: %w", err)
	}
	return append(mounts, &runtimeapi.Mount{ContainerPath: EtcHosts, HostPath: file, SelinuxRelabel: true}), nil
}

// writeInPlace makes text the content of the file, which running containers have
// mounted: it stays the same file, and is left alone where nothing differs. What a
// container has written into it may be larger than memory, so it is not read for that.
func writeInPlace(file, text string) error {
	if info, err := os.Stat(file); err == nil && info.Size() == int64(len(text)) {
		if known, err := os.ReadFile(file); err == nil && string(known) == text {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { // any user of the pod may read
		return err
	}
	// Whatever the umask.
	return os.Chmod(file, 0o644) // any user of the pod may read
}
