package contract

// daemonSetRow is the table's row for DaemonSets: it judges an object, not a field
// of a pod, and so has no rule of its own in the walk.
var daemonSetRow = Row{Feature: "daemonset", Default: Deny}

// daemonSet, contract §6: a DaemonSet that selects AI nodes is refused.
func daemonSet(r *review) {
	r.override = r.Policy.override(r.row)
	if r.override == Allow {
		return
	}
	r.find(Finding{
		Field: "spec", Action: Deny,
		Detail: "DaemonSets do not run on AI nodes, and this one selects them",
		Remedy: "use a Deployment or StatefulSet, or take the selection of AI nodes out of the template",
	})
}
