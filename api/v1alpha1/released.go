package v1alpha1

// Released reports whether the agent has given back the node's last binding: nothing
// of it runs or is stored on the machine. It is true of a node that was never bound
// (bindEpoch 0) as well.
func (n *AINode) Released() bool {
	return n.Spec.ClusterConfigName == "" && n.Status.ObservedEpoch == n.Spec.BindEpoch &&
		(n.Status.BindStatus == Unbound || n.Status.BindStatus == "")
}
