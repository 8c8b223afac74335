package nodes

import (
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// describeCards draws which pod has which card, as the pods' own statuses say it
// (KEP-4680), and what the Node says of its cards.
func describeCards(w io.Writer, line func(string, string, ...any), v View) {
	for _, c := range v.Node.Status.Conditions {
		if c.Type == contract.GPUsUsableCondition {
			line("GPUs usable", "%s  %s", c.Status, strings.ReplaceAll(c.Message, "\n", " "))
		}
	}
	if len(v.Record.Status.GPUs) == 0 {
		return
	}
	holders, told := holders(v.Pods)
	if !told && slices.ContainsFunc(v.Pods, asksForGPUs) {
		line("Card map", "this cluster does not keep which pod has which card (Kubernetes does from 1.36 on)")
		return
	}
	title := "Card map"
	if v.Record.Status.SimulatedGPUs != "" {
		title += " (simulated)"
	}
	fmt.Fprintf(w, "%s:\n", title)
	for _, g := range v.Record.Status.GPUs {
		holder := holders[g.UUID]
		if holder == "" {
			holder = "-"
		}
		line(fmt.Sprintf("  %d", g.Index), "%s", holder)
	}
}

// holders are the pods that have cards, by UUID; told is false where no status says.
func holders(pods []corev1.Pod) (by map[string]string, told bool) {
	by = map[string]string{}
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue // its processes have ended, and its cards are free
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			for _, r := range c.AllocatedResourcesStatus {
				if !contract.IsGPUResource(r.Name) {
					continue
				}
				for _, card := range r.Resources {
					told = true
					text := fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, c.Name)
					if card.Health == corev1.ResourceHealthStatusUnhealthy {
						text += ", failed"
					}
					by[string(card.ResourceID)] = text // an app container has it after an init container
				}
			}
		}
	}
	return by, told
}

func asksForGPUs(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool {
		q := c.Resources.Limits[contract.GPUResource]
		return !q.IsZero()
	})
}
