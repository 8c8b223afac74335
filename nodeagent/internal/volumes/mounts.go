package volumes

import (
	"errors"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/mount-utils"
)

// Mounts are the mounts of one container on volumes that Setup returned. A
// relative mountPath begins at the container's root. A subPath is resolved inside
// its volume: one that leads out of it, by symbolic links or dots, is refused, and
// what the runtime mounts is the very file or directory that was checked, also if
// someone changes the path at the same time. A subPathExpr must have been replaced
// (crispec.ExpandSubPaths).
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, mounted Mounted) ([]*runtimeapi.Mount, error) {
	if err := checkUID(pod.UID); err != nil {
		return nil, err
	}
	kinds := map[string]*corev1.Volume{}
	for i := range pod.Spec.Volumes {
		kinds[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	var mounts []*runtimeapi.Mount
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		host, ok := mounted[vm.Name]
		volume := kinds[vm.Name]
		if !ok || volume == nil {
			return nil, fmt.Errorf("mount volume %q into container %q: the pod has no such volume", vm.Name, c.Name)
		}
		mount, err := m.mount(pod, c.Name, i, vm, volume, host)
		if err != nil {
			return nil, fmt.Errorf("mount volume %q into container %q: %w", vm.Name, c.Name, err)
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func (m *Manager) mount(pod *corev1.Pod, container string, index int, vm *corev1.VolumeMount, v *corev1.Volume, host string) (*runtimeapi.Mount, error) {
	mount := &runtimeapi.Mount{
		ContainerPath:  containerPath(vm.MountPath),
		HostPath:       host,
		Readonly:       vm.ReadOnly || isContent(v) || isClaim(v) && v.PersistentVolumeClaim.ReadOnly,
		SelinuxRelabel: !isClaim(v), // not one request an object of the bucket
	}
	// A bucket is mounted where all volumes are, and may be mounted there anew.
	byDriver := host != m.volume(pod.UID, v.Name)
	if byDriver {
		there, ok, err := m.published(pod, v)
		if err != nil {
			return nil, err
		}
		// Also where a driver has made it writable all the same (csi.readOnly of the volume).
		mount.Readonly = mount.Readonly || ok && there.ReadOnly
		mount.SelinuxRelabel = (!ok || !there.ReadOnly) && m.takesLabels(host)
	}
	following := !byDriver && follows(pod, vm, v)
	if following {
		mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	}
	if mount.ContainerPath == "/" {
		return nil, errors.New("a volume can't be the container's root")
	}
	if p := vm.MountPropagation; p != nil && *p != corev1.MountPropagationNone && (*p != corev1.MountPropagationHostToContainer || !following) {
		return nil, fmt.Errorf("mountPropagation %q is not supported on AI nodes: nothing is mounted into a running pod; leave it out, or set None", *p)
	}
	if rro := vm.RecursiveReadOnly; rro != nil && *rro == corev1.RecursiveReadOnlyEnabled {
		mount.RecursiveReadOnly = true
	}
	if vm.SubPathExpr != "" {
		return nil, fmt.Errorf("subPathExpr %q is not expanded", vm.SubPathExpr)
	}
	if vm.SubPath == "" {
		return mount, nil
	}
	if isContent(v) {
		defer m.lock(pod.UID)() // a swap would take away what a link leads to
	}
	target := m.subPath(pod.UID, v.Name, container, index)
	if err := m.bindSubPath(host, vm.SubPath, target, !isContent(v)); err != nil {
		return nil, err
	}
	mount.HostPath = target
	return mount, nil
}

// takesLabels reports whether what a driver has mounted can be given SELinux labels, by
// what the kernel says of the mount (pkg/volume/util/hostutil, GetSELinuxSupport).
func (m *Manager) takesLabels(path string) bool {
	mounts, err := m.o.Mounter.List()
	return err == nil && slices.ContainsFunc(mounts, func(mounted mount.MountPoint) bool {
		return mounted.Path == path && slices.Contains(mounted.Opts, "seclabel")
	})
}

// containerPath makes a mountPath absolute and clean: the runtime replaces its own
// /dev/shm only where the paths are equal to the letter.
func containerPath(mountPath string) string { return path.Join("/", mountPath) }
