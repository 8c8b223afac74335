package identity

import (
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

// Epoch is the bind epoch that an object of a target belongs to; ok is false of an
// object that bind and its agent have not made.
func Epoch(o metav1.Object) (epoch int64, ok bool) {
	return number(o, contract.BindEpochAnnotation)
}

// TargetEpoch is the epoch of node that a ClusterRole stands for. On a hub that is
// the target as well, the agent's own account has the node's label too: ok is false
// of it.
func TargetEpoch(role metav1.Object, node string) (epoch int64, ok bool) {
	epoch, ok = Epoch(role)
	return epoch, ok && role.GetName() == Target(node, epoch)
}

// ReleasedEpoch is the newest epoch of a Node that its agent says it has given back. ok
// is false while a later one is bound there: the mark is then of an earlier life.
func ReleasedEpoch(node metav1.Object) (epoch int64, ok bool) {
	bound, isOurs := Epoch(node)
	released, marked := number(node, contract.ReleasedEpochAnnotation)
	return released, isOurs && marked && released >= bound
}

func number(o metav1.Object, annotation string) (int64, bool) {
	n, err := strconv.ParseInt(o.GetAnnotations()[annotation], 10, 64)
	return n, err == nil
}
