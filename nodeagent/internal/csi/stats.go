package csi

import (
	"context"
	"errors"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

// ErrNoStats is that a driver can't tell how full its volumes are (GET_VOLUME_STATS).
var ErrNoStats = errors.New("the CSI driver tells no figures of volumes")

// Stats asks the driver of the pod's claim how full the volume is, in bytes and, where it
// counts them, inodes. The file system is not asked: one whose server is away would not
// answer, and nothing ends a process that waits for it. Nor does the call wait for others
// of the volume, or have them wait, as on a kubelet: one that hangs keeps no pod from
// ending.
func (m *Manager) Stats(ctx context.Context, uid types.UID, claim string) (s stats.FsStats, err error) {
	r, err := m.published(uid, claim)
	if err != nil {
		return s, err
	}
	if r == nil {
		return s, fmt.Errorf("claim %q of the pod is not published", claim)
	}
	d, err := m.driver(r.Driver)
	if err != nil {
		return s, err
	}
	can, err := d.capabilities(ctx)
	if err != nil {
		return s, err
	}
	if !can[csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS] {
		return s, ErrNoStats
	}
	var usage []*csipb.VolumeUsage
	err = d.call(ctx, "NodeGetVolumeStats", nil, func(ctx context.Context, node csipb.NodeClient) error {
		answer, err := node.NodeGetVolumeStats(ctx, &csipb.NodeGetVolumeStatsRequest{VolumeId: r.Handle, VolumePath: r.target()})
		usage = answer.GetUsage()
		return err
	})
	if err != nil {
		return s, err
	}
	if len(usage) == 0 {
		return s, fmt.Errorf("CSI driver %s: NodeGetVolumeStats: its answer has no figures", r.Driver)
	}
	return figures(usage, metav1.NewTime(m.o.Clock.Now())), nil
}

// figures are a driver's in the words of the kubelet's summary API. Of what it does not
// tell CSI says 0, and so does a kubelet.
func figures(usage []*csipb.VolumeUsage, at metav1.Time) stats.FsStats {
	s := stats.FsStats{Time: at}
	for _, u := range usage {
		switch u.GetUnit() {
		case csipb.VolumeUsage_BYTES:
			s.CapacityBytes, s.AvailableBytes, s.UsedBytes = count(u.GetTotal()), count(u.GetAvailable()), count(u.GetUsed())
		case csipb.VolumeUsage_INODES:
			s.Inodes, s.InodesFree, s.InodesUsed = count(u.GetTotal()), count(u.GetAvailable()), count(u.GetUsed())
		}
	}
	return s
}

// count is what a driver counts: CSI forbids it to be negative, which not every driver
// knows.
func count(n int64) *uint64 { return ptr.To(uint64(max(n, 0))) }
