package contract

// daemonSet is row daemonset of SUPPORT.md: a DaemonSet that selects AI nodes is refused.
// The finding is of the object, not of a field of its template.
func daemonSet(r *review) {
	if !r.DaemonSet {
		return
	}
	r.find(Finding{
		Field: "spec", Action: Deny,
		Detail: "DaemonSets do not run on AI nodes, and this one selects them",
		Remedy: "use a Deployment or StatefulSet, or take the selection of AI nodes out of the template",
	})
}
