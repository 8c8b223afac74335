package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// emptyDir makes an empty directory on disk or in memory that every user of the
// pod may write, unless it is there already. It is there with all its rights or not at
// all, whenever the agent is killed.
func (m *Manager) emptyDir(pod *corev1.Pod, source *corev1.EmptyDirVolumeSource, path string) error {
	switch source.Medium {
	case corev1.StorageMediumDefault:
		return directory(path, fsGroup(pod))
	case corev1.StorageMediumMemory:
		// Sticky, as the kubelet leaves a tmpfs.
		options := []string{"size=" + memorySize(pod, source), "mode=1777"}
		if group := fsGroup(pod); group != nil {
			options = append(options[:1], "mode=3777", "gid="+strconv.FormatInt(*group, 10))
		}
		_, err := m.tmpfs(path, options...)
		return err
	default:
		return fmt.Errorf("emptyDir medium %q is not supported on AI nodes", source.Medium)
	}
}

func directory(path string, group *int64) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	fresh, err := os.MkdirTemp(parent, "..new-") // no volume is called so
	if err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	if err := os.Chmod(fresh, 0o777); err != nil { // any user of the pod may write
		return fmt.Errorf("open the directory to all users of the pod: %w", err)
	}
	if err := own(fresh, group, writable); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	return nil
}

// memorySize is the size of a memory-backed emptyDir, as tmpfs takes it: its
// sizeLimit, but no more than the pod's memory limit, which it counts towards;
// with neither the machine's memory.
func memorySize(pod *corev1.Pod, source *corev1.EmptyDirVolumeSource) string {
	size := crispec.MemoryLimit(pod)
	if source.SizeLimit != nil {
		if limit := source.SizeLimit.Value(); limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	if size == 0 {
		return "100%"
	}
	return strconv.FormatInt(size, 10)
}

// tmpfs mounts one at path, unless there is one, and reports whether it did.
func (m *Manager) tmpfs(path string, options ...string) (made bool, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return false, fmt.Errorf("make the mount point: %w", err)
	}
	is, err := m.o.Mounter.IsMountPoint(path)
	if err != nil {
		return false, fmt.Errorf("look for a mount at %q: %w", path, err)
	}
	if is {
		return false, nil
	}
	options = append([]string{"nosuid", "nodev"}, options...)
	if err := m.o.Mounter.MountSensitiveWithoutSystemd("tmpfs", path, "tmpfs", options, nil); err != nil {
		return false, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return true, nil
}
