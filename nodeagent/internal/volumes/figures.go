package volumes

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/ainode/ainode/nodeagent/internal/csi"
)

// figuresEvery is how often a driver is asked how full a pod's volume is, the kubelet's
// volumeStatsAggPeriod.
const figuresEvery = time.Minute

// figures are what drivers said last, by pod and volume name. Its zero value is ready.
type figures struct {
	mu  sync.Mutex
	all map[types.UID]map[string]stats.VolumeStats
}

// Figures are what the CSI drivers of the pod's volumes said last of how full those are, by
// name. Nobody is asked. Buckets have none: one has no size, what statfs(2) says of it its
// helper has made up, and one whose endpoint is away may not answer at all.
func (m *Manager) Figures(uid types.UID) []stats.VolumeStats {
	m.figures.mu.Lock()
	defer m.figures.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.figures.all[uid]), func(a, b stats.VolumeStats) int { return cmp.Compare(a.Name, b.Name) })
}

func (f *figures) set(uid types.UID, s stats.VolumeStats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[types.UID]map[string]stats.VolumeStats{}
	}
	if f.all[uid] == nil {
		f.all[uid] = map[string]stats.VolumeStats{}
	}
	f.all[uid][s.Name] = s
}

func (f *figures) forget(uid types.UID, volume string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all[uid], volume)
	if len(f.all[uid]) == 0 {
		delete(f.all, uid)
	}
}

// measure asks the driver of a volume once a minute how full it is, until ctx is done or
// the driver can't tell. Each volume has a goroutine of its own and who wants figures waits
// for none, so that a driver that hangs leaves only its own volumes without.
func (m *Manager) measure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) {
	if _, ok, err := m.published(pod, v); err != nil || !ok {
		return // a bucket
	}
	claim := v.PersistentVolumeClaim.ClaimName
	defer m.figures.forget(pod.UID, v.Name)
	for told := ""; ; {
		s, err := m.o.CSI.Stats(ctx, pod.UID, claim)
		switch {
		case ctx.Err() != nil, errors.Is(err, csi.ErrNoStats):
			return
		case err == nil:
			told = ""
			m.figures.set(pod.UID, stats.VolumeStats{FsStats: s, Name: v.Name, PVCRef: &stats.PVCReference{Name: claim, Namespace: pod.Namespace}})
		default:
			m.figures.forget(pod.UID, v.Name) // old ones would look like today's
			if err.Error() != told {
				told = err.Error()
				klog.FromContext(ctx).Error(err, "How full a volume is is not known", "pod", klog.KObj(pod), "volume", v.Name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.o.Clock.After(figuresEvery):
		}
	}
}
