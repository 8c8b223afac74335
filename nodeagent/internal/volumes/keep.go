package volumes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How long a volume whose helper has ended waits to be mounted again: longer from try
// to try, and from helper to helper, until one has lived for a while.
const (
	mendFirst = 500 * time.Millisecond
	mendLast  = time.Minute
	livedLong = 10 * time.Minute
)

// Mounting reports whether a volume of the pod may have a helper, which may end, or a
// driver that wants to be called again.
func Mounting(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return isClaim(&v) })
}

// Watcher is told what becomes of a pod's mounts. Its methods do not block.
type Watcher interface {
	// Mended tells of a helper that has ended and been replaced.
	Mended(message string)
	// NotMended tells why one that has ended is not replaced yet, once a reason.
	NotMended(err error)
}

// Keep puts a new helper in the place of one that has ended, and asks drivers how full
// their volumes are, until ctx is done. Only for a pod whose volumes Setup has made.
func (m *Manager) Keep(ctx context.Context, pod *corev1.Pod, watcher Watcher) {
	var all sync.WaitGroup
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; isClaim(v) {
			all.Go(func() { m.keep(ctx, pod, v, watcher) })
			all.Go(func() { m.measure(ctx, pod, v) })
		}
	}
	all.Wait()
}

func (m *Manager) keep(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, watcher Watcher) {
	wait, told := mendFirst, ""
	for {
		if there, ok, err := m.published(pod, v); err == nil && ok {
			if there.Again {
				m.republish(ctx, pod, v, watcher)
			}
			return // its driver looks after it
		}
		began := m.o.Clock.Now()
		if m.fuseMount(pod.UID, v.Name).Ended(ctx) == nil {
			if m.o.Clock.Since(began) > livedLong {
				wait, told = mendFirst, ""
			}
			path, err := m.claim(ctx, pod, v)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil && path != m.volume(pod.UID, v.Name):
				continue // no bucket
			case err == nil:
				told = ""
				watcher.Mended(mended(pod, v.Name))
			case err.Error() != told:
				told = err.Error()
				watcher.NotMended(setUpFailed(v, err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, mendLast)
	}
}

// mended says what the containers see of a volume that was mounted again.
func mended(pod *corev1.Pod, volume string) string {
	text := fmt.Sprintf("Volume %s: its FUSE helper ended and was started again. Files that were open have to be opened again.", volume)
	if blind := notFollowing(pod, volume); len(blind) > 0 {
		text += fmt.Sprintf(" These containers see the new mount when they are restarted, since they mount it by subPath, or read-only where others write: %s", strings.Join(blind, ", "))
	}
	return text
}

// notFollowing are the containers to which a new mount of the volume does not get.
func notFollowing(pod *corev1.Pod, volume string) []string {
	at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume })
	var names []string
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if slices.ContainsFunc(list[i].VolumeMounts, func(vm corev1.VolumeMount) bool {
				return vm.Name == volume && !follows(pod, &vm, &pod.Spec.Volumes[at])
			}) {
				names = append(names, list[i].Name)
			}
		}
	}
	return names
}

// follows reports whether a container is to see what is mounted over a bucket later.
// What comes later has the rights of the pod's mount, so a container that may only read
// follows where nobody in the pod writes. One that may do so to the last does not: CRI
// has the two exclude each other.
func follows(pod *corev1.Pod, vm *corev1.VolumeMount, v *corev1.Volume) bool {
	if rro := vm.RecursiveReadOnly; rro != nil && *rro == corev1.RecursiveReadOnlyEnabled {
		return false
	}
	return isClaim(v) && vm.SubPath == "" && vm.SubPathExpr == "" && (!vm.ReadOnly || !podWrites(pod, v))
}
