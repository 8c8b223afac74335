package volumes

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/objects"
)

// Follow calls changed whenever Refresh may have something to do: soon after one of
// the ConfigMaps and Secrets in the pod's volumes has changed, and once when each is
// first heard of, which mends what an agent left that was killed. It does so until ctx
// is done; changed must not block.
func (m *Manager) Follow(ctx context.Context, pod *corev1.Pod, changed func()) {
	if names := references(pod); len(names) > 0 {
		m.o.Followed.Follow(ctx, names, changed)
	}
}

// Changing reports whether a volume of the pod has content that may change.
func Changing(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if isContent(&pod.Spec.Volumes[i]) {
			return true
		}
	}
	return false
}

// references are the objects that the pod's volumes are made from, each once.
func references(pod *corev1.Pod) []objects.Reference {
	var all []objects.Reference
	known := map[objects.Reference]bool{}
	add := func(kind objects.Kind, name string) {
		if r := (objects.Reference{Kind: kind, Namespace: pod.Namespace, Name: name}); !known[r] {
			known[r] = true
			all = append(all, r)
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			add(objects.ConfigMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(objects.Secret, v.Secret.SecretName)
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				if s := v.Projected.Sources[j].ConfigMap; s != nil {
					add(objects.ConfigMap, s.Name)
				}
				if s := v.Projected.Sources[j].Secret; s != nil {
					add(objects.Secret, s.Name)
				}
			}
		}
	}
	return all
}

// Refresh writes what has changed in ConfigMaps, Secrets and the pod's own object,
// and tokens that grow old, into the volumes that Setup has made, each by an atomic
// swap. It asks the API for tokens alone; of all else it takes what was heard last. What
// can't be had stays as it is, and is told in the kubelet's words. next is when a token
// grows old, zero if there is none.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod) (next time.Time, err error) {
	if err := checkUID(pod.UID); err != nil {
		return time.Time{}, err
	}
	from := lookup(pod, m.o.Followed)
	var failed []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		path := m.volume(pod.UID, v.Name)
		if !isContent(v) || !m.written(path) {
			continue
		}
		c, err := m.collect(ctx, pod, v, from)
		next = earliest(next, c.renew)
		if err == nil {
			err = m.rewrite(pod, path, c)
		}
		if err != nil && !errors.Is(err, objects.ErrNotSeen) && ctx.Err() == nil {
			failed = append(failed, setUpFailed(v, err))
		}
	}
	return next, errors.Join(failed...)
}

// rewrite swaps the content of a volume that is there, and leaves one alone that has
// been taken away meanwhile.
func (m *Manager) rewrite(pod *corev1.Pod, path string, c *collector) error {
	defer m.lock(pod.UID)()
	if !m.written(path) {
		return nil
	}
	return m.swap(path, c.files, fsGroup(pod))
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
