package volumes

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/csi"
)

// republishEvery is how often a driver is called again that wants that, about as often
// as a kubelet looks at a pod.
const republishEvery = time.Minute

// claim mounts the volume of a claim, and returns where it is: of a bucket by the agent
// itself, of another by its CSI driver. What is mounted is not looked up again.
func (m *Manager) claim(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	if there, ok, err := m.published(pod, v); err != nil || ok {
		return there.Path, err
	}
	path := m.volume(pod.UID, v.Name)
	if live, err := m.live(pod.UID, v.Name); err != nil || live {
		return path, err
	}
	volume, err := m.claimed(ctx, pod, v.PersistentVolumeClaim.ClaimName)
	if err != nil {
		return "", err
	}
	if volume.Spec.CSI.Driver == contract.OSSDriver {
		return path, m.mountBucket(ctx, pod, v, volume)
	}
	return m.publish(ctx, pod, v, volume, false)
}

// published is where a CSI driver has mounted the pod's claim, if one has.
func (m *Manager) published(pod *corev1.Pod, v *corev1.Volume) (there csi.Published, ok bool, err error) {
	if m.o.CSI == nil {
		return csi.Published{}, false, nil
	}
	return m.o.CSI.Published(pod.UID, v.PersistentVolumeClaim.ClaimName)
}

// publish has the volume's CSI driver mount it, or, again, do so once more.
func (m *Manager) publish(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, volume *corev1.PersistentVolume, again bool) (string, error) {
	if m.o.CSI == nil {
		return "", fmt.Errorf("persistentvolume %q has driver %q: this agent has no CSI drivers", volume.Name, volume.Spec.CSI.Driver)
	}
	group := fsGroup(pod)
	path, err := m.o.CSI.Mount(ctx, csi.Request{
		Pod: pod, Claim: v.PersistentVolumeClaim.ClaimName, Volume: volume, ReadOnly: v.PersistentVolumeClaim.ReadOnly || volume.Spec.CSI.ReadOnly,
		FSGroup: group, Own: func(path string) error { return ownMounted(path, pod) },
		Node: m.o.Node, Objects: keptTokens{m.o.Drivers, &m.tokens}, Again: again,
	})
	if err != nil {
		return "", fmt.Errorf("persistentvolume %q: %w", volume.Name, err)
	}
	return path, nil
}

// republish has the driver of a volume called again and again, if it wants that, until
// ctx is done: mostly since what it puts there grows old.
func (m *Manager) republish(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, watcher Watcher) {
	for told := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-m.o.Clock.After(republishEvery):
		}
		volume, err := m.claimed(ctx, pod, v.PersistentVolumeClaim.ClaimName)
		if err == nil {
			_, err = m.publish(ctx, pod, v, volume, true)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			watcher.NotMended(setUpFailed(v, err))
		}
	}
}

// setUpFailed is the kubelet's word for a volume that could not be made or refreshed.
func setUpFailed(v *corev1.Volume, err error) error {
	var staging *csi.StageError
	if errors.As(err, &staging) {
		return fmt.Errorf("MountVolume.MountDevice failed for volume %q : %w", v.Name, err)
	}
	return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
}
