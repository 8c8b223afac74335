package nodes

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// BoundAnew is the command that binds a bound node at another of its addresses, ADDRESS,
// and otherwise as it is: whoever pastes it must not lose a range, an end, or the word that
// keeps load balancers off.
func BoundAnew(r *v1alpha1.AINode) string {
	words := []string{fmt.Sprintf("kubectl ainode unbind %s && kubectl ainode bind %s --to %s --address ADDRESS", r.Name, r.Name, r.Spec.ClusterConfigName)}
	if r.Spec.PodCIDR != "" {
		words = append(words, "--pod-cidr "+r.Spec.PodCIDR)
	}
	if _, excluded := r.Spec.NodeLabels[corev1.LabelNodeExcludeBalancers]; excluded {
		words = append(words, "--lb-mode exclude")
	}
	if r.Spec.Until != nil {
		words = append(words, "--until "+r.Spec.Until.UTC().Format(time.RFC3339))
		if r.Spec.DrainGrace != nil {
			words = append(words, "--drain-grace "+r.Spec.DrainGrace.Duration.String())
		}
	}
	return strings.Join(words, " ")
}
