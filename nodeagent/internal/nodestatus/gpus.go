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
	// Total is how many there are, and Usable how many of them pods may have.
	Total, Usable   int
	Status          corev1.ConditionStatus
	Reason, Message string
	// Labels describe the cards on the Node. All labels that begin with one of
	// Prefixes and are not among them are taken off.
	Labels   map[string]string
	Prefixes []string
}

// counted is list with that many GPUs.
func (g *GPUs) counted(list corev1.ResourceList, n int) corev1.ResourceList {
	list = maps.Clone(list)
	if list == nil {
		list = corev1.ResourceList{}
	}
	list[contract.GPUResource] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	return list
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
