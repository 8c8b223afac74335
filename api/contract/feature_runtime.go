package contract

import (
	"fmt"
	"slices"
)

// nvidiaClasses are the runtime classes that GPU operators make; AI nodes give
// GPUs without any.
var nvidiaClasses = []string{"nvidia", "nvidia-cdi", "nvidia-legacy"}

// runtimeClass is row runtime-class of SUPPORT.md. The overhead that RuntimeClass
// admission filled in goes along: the API server refuses an overhead without its class.
//
//	runtime-class: spec.runtimeClassName was removed: AI nodes give GPUs without runtime class nvidia
func runtimeClass(r *review) {
	class := r.pod.Spec.RuntimeClassName
	if class == nil || *class == "" {
		return
	}
	if !slices.Contains(nvidiaClasses, *class) {
		r.find(Finding{
			Field: "spec.runtimeClassName", Action: Deny, Old: raw(*class),
			Detail: fmt.Sprintf("runtime class %q is not there on AI nodes", cut(*class, 63)), Remedy: "remove runtimeClassName",
		})
		return
	}
	edits := []edit{remove("/spec/runtimeClassName")}
	if len(r.pod.Spec.Overhead) > 0 && string(r.pod.Spec.Overhead) != "null" {
		edits = append(edits, remove("/spec/overhead"))
	}
	r.find(Finding{
		Field: "spec.runtimeClassName", Action: Strip, Old: raw(*class),
		Detail: fmt.Sprintf("AI nodes give GPUs without runtime class %s", *class), Remedy: "remove runtimeClassName",
	}, edits...)
}

// resourceClaims is row resource-claims of SUPPORT.md: dynamic resource allocation is
// refused.
func resourceClaims(r *review) {
	const remedy = "ask for GPUs in resources.limits"
	if len(r.pod.Spec.ResourceClaims) > 0 {
		r.find(Finding{
			Field: "spec.resourceClaims", Action: Deny,
			Detail: "dynamic resource allocation is not supported", Remedy: remedy,
		})
	}
	r.pod.containers(func(c *Container) {
		if c.Resources != nil && len(c.Resources.Claims) > 0 {
			r.find(Finding{
				Field: c.field + ".resources.claims", Action: Deny,
				Detail: "dynamic resource allocation is not supported", Remedy: remedy,
			})
		}
	})
}
