package nodes

import (
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// describeCards draws which pod has which card or slice, as the pods' own statuses say it
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
	held := func(uuid string) string {
		if holder := holders[uuid]; holder != "" {
			return holder
		}
		return "-"
	}
	for _, g := range v.Record.Status.GPUs {
		switch {
		case !g.MIG:
			line(fmt.Sprintf("  %d", g.Index), "%s", held(g.UUID))
		case len(g.Slices) == 0:
			line(fmt.Sprintf("  %d", g.Index), "in MIG mode, without slices")
		}
		for _, s := range g.Slices {
			line(fmt.Sprintf("  %d %s", g.Index, s.Profile), "%s", held(s.UUID))
		}
	}
}

// holders are the pods that have cards and slices, by UUID; told is false where no status says.
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
	cards, slices := asked(&p)
	return cards+slices > 0
}

// asked is how many cards, and how many slices of them, the pod's containers ask for.
func asked(p *corev1.Pod) (cards, slices int64) {
	for _, c := range p.Spec.Containers {
		for name, q := range c.Resources.Limits {
			switch {
			case name == contract.GPUResource:
				cards += q.Value()
			case contract.IsGPUResource(name):
				slices += q.Value()
			}
		}
	}
	return cards, slices
}
