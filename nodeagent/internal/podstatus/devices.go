package podstatus

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
)

// deviceHealth is which GPUs and slices a container has, and how they are (KEP-4680); where
// nobody knows any more, what stood there stays.
func deviceHealth(cards []Card, old *corev1.ContainerStatus) []corev1.ResourceStatus {
	if len(cards) == 0 {
		if old == nil {
			return nil
		}
		return old.AllocatedResourcesStatus
	}
	var all []corev1.ResourceStatus
	for _, card := range cards {
		at := slices.IndexFunc(all, func(s corev1.ResourceStatus) bool { return s.Name == card.Resource })
		if at < 0 {
			at, all = len(all), append(all, corev1.ResourceStatus{Name: card.Resource})
		}
		health := corev1.ResourceHealth{ResourceID: corev1.ResourceID(card.UUID), Health: corev1.ResourceHealthStatusHealthy}
		if card.Trouble != "" {
			health.Health, health.Message = corev1.ResourceHealthStatusUnhealthy, ptr.To(shortened(card.Trouble))
		}
		all[at].Resources = append(all[at].Resources, health)
	}
	return all
}

// shortened keeps a message within what the API takes.
func shortened(message string) string {
	if len(message) > corev1.ResourceHealthMessageMaxLength {
		message = strings.ToValidUTF8(message[:corev1.ResourceHealthMessageMaxLength], "")
	}
	return message
}

func isFault(c corev1.PodCondition) bool { return c.Type == contract.GPUFaultCondition }

// faultCondition says that one of the pod's GPUs failed. It stays when the GPU is
// well again: what became of the pod came of it.
func faultCondition(in *Input, old []corev1.PodCondition, now metav1.Time) *corev1.PodCondition {
	for _, conditions := range [][]corev1.PodCondition{in.Pod.Status.Conditions, old} {
		if i := slices.IndexFunc(conditions, isFault); i >= 0 {
			return &conditions[i]
		}
	}
	if in.Fault == nil {
		return nil
	}
	return &corev1.PodCondition{
		Type: contract.GPUFaultCondition, Status: corev1.ConditionTrue, Reason: in.Fault.Reason, Message: in.Fault.Message,
		ObservedGeneration: in.Pod.Generation, LastTransitionTime: now,
	}
}
