package nodestatus

import (
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

// GPUs is how the machine's cards are now.
type GPUs struct {
	// Total is how many whole cards and slices of each kind there are, and Usable how
	// many of them pods may have. Both count cards even where there are none.
	Total, Usable   map[corev1.ResourceName]int
	Status          corev1.ConditionStatus
	Reason, Message string
	// Labels describe the cards on the Node. All labels that begin with one of
	// Prefixes and are not among them are taken off.
	Labels   map[string]string
	Prefixes []string
}

// counted is list with those counts, and none of other cards or slices.
func counted(list corev1.ResourceList, counts map[corev1.ResourceName]int) corev1.ResourceList {
	list = maps.Clone(list)
	maps.DeleteFunc(list, func(name corev1.ResourceName, _ resource.Quantity) bool { return contract.IsGPUResource(name) })
	if list == nil {
		list = corev1.ResourceList{}
	}
	for name, n := range counts {
		list[name] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	}
	return list
}

// goneFor is how long a kind of slices that the machine had stands on the Node with 0:
// whoever watches sees that it went. It is the kubelet's endpointStopGracePeriod, for
// which it keeps the devices of a plugin that ended
// (pkg/kubelet/cm/devicemanager/types.go).
const goneFor = 5 * time.Minute

// keepGone puts into want, whose lists are its own, with 0 what have counts and the machine has no more, until its
// time is over.
func (r *Registrar) keepGone(want *corev1.NodeStatus, have corev1.ResourceList, now time.Time) {
	for name := range have {
		if _, there := want.Capacity[name]; there || !contract.IsGPUResource(name) {
			delete(r.gone, name)
			continue
		}
		if r.gone == nil {
			r.gone = map[corev1.ResourceName]time.Time{}
		}
		if _, known := r.gone[name]; !known {
			r.gone[name] = now
		}
		if now.Sub(r.gone[name]) < goneFor {
			want.Capacity[name] = *resource.NewQuantity(0, resource.DecimalSI)
			want.Allocatable[name] = want.Capacity[name]
		}
	}
}

func (g *GPUs) condition(have []corev1.NodeCondition, now time.Time) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: contract.GPUsUsableCondition, Status: g.Status, Reason: g.Reason, Message: g.Message,
		LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
	for _, old := range have {
		if old.Type == c.Type && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	return c
}

// relabel is what makes have's labels describe the cards; nil takes a label off.
func (g *GPUs) relabel(have map[string]string) map[string]*string {
	change := map[string]*string{}
	for name, value := range missing(have, g.Labels) {
		change[name] = &value
	}
	for name := range have {
		_, wanted := g.Labels[name]
		for _, prefix := range g.Prefixes {
			if strings.HasPrefix(name, prefix) && !wanted {
				change[name] = nil
			}
		}
	}
	return change
}
