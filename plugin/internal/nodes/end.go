package nodes

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/endtime"
)

// Ending says when a binding ends and what becomes of its pods; empty without an end.
func Ending(r *v1alpha1.AINode, now time.Time) string {
	at := ends(r, now)
	if at == "" {
		return ""
	}
	return at + ", " + endtime.Drains(r.Spec.Until.Time, grace(r), now)
}

// LeftToDrain is how long it is until the pods of a binding that ends are sent away; false
// without an end.
func LeftToDrain(r *v1alpha1.AINode, now time.Time) (time.Duration, bool) {
	if ends(r, now) == "" {
		return 0, false
	}
	return r.Spec.Until.Add(-grace(r)).Sub(now), true
}

func grace(r *v1alpha1.AINode) time.Duration {
	return ptr.Deref(r.Spec.DrainGrace, metav1.Duration{}).Duration
}

// NextEnd says which of several bindings ends first, in 80 columns; empty where none has an
// end.
func NextEnd(records []v1alpha1.AINode, now time.Time) string {
	var first *v1alpha1.AINode
	n := 0
	for i := range records {
		r := &records[i]
		if ends(r, now) == "" {
			continue
		}
		if n++; first == nil || r.Spec.Until.Before(first.Spec.Until) {
			first = r
		}
	}
	switch {
	case n == 0:
		return ""
	case n == 1 && first.Spec.Until.After(now):
		return fmt.Sprintf("The binding of %s ends at %s.", first.Name, ends(first, now))
	case n == 1:
		return fmt.Sprintf("The binding of %s was to end at %s.", first.Name, ends(first, now))
	}
	return fmt.Sprintf("%d bindings have an end; first: %s, %s\nSee all:  kubectl ainode list -o wide", n, first.Name, ends(first, now))
}
