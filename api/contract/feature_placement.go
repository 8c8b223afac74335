package contract

// placement is row placement of SUPPORT.md: a pod that opts in by label gets the AI
// nodes' nodeSelector. A selector, an affinity or a nodeName of its own already says
// where it goes.
//
//	placement: spec.nodeSelector was added: the pod opts in by label
func placement(r *review) {
	spec := &r.pod.Spec
	if spec.NodeSelector[NodeLabel] == NodeLabelValue || IsNodeName(spec.NodeName) || spec.Affinity.requires(asksForAINodes) {
		return
	}
	detail := "the pod opts in by label " + ScheduleLabel
	if r.pod.Metadata.Labels[ScheduleLabel] != "true" {
		detail = "its namespace opts its GPU pods in by label " + ScheduleLabel
	}
	if r.override == Warn {
		detail = "not there, though " + detail
	}
	add := set("/spec/nodeSelector/"+escape(NodeLabel), NodeLabelValue)
	if spec.NodeSelector == nil {
		add = set("/spec/nodeSelector", map[string]string{NodeLabel: NodeLabelValue})
	}
	r.find(Finding{Field: "spec.nodeSelector[" + NodeLabel + "]", Action: Inject, Detail: detail}, add)
}
