package admission

import "github.com/ainode/ainode/api/contract"

// mutatePod makes an AI node's pod fit, or refuses it. GPU amounts are refused
// here and not while validating: the API server's own check comes in between, and
// its text would be read instead of ours.
func (h *Handler) mutatePod(in *request[*contract.Object], ns contract.Namespace) (contract.Verdict, error) {
	moment := contract.OnCreate
	if in.Operation == "UPDATE" {
		moment = contract.OnUngate
	}
	return h.pod(in, ns, moment)
}

// validatePod looks at the pod that all mutating webhooks have left. What would
// still have to be changed is only told: the machine defends itself.
func (h *Handler) validatePod(in *request[*contract.Object], ns contract.Namespace) (contract.Verdict, error) {
	return h.pod(in, ns, contract.Settled)
}

func (h *Handler) pod(in *request[*contract.Object], ns contract.Namespace, moment contract.Moment) (contract.Verdict, error) {
	pod, err := in.Object.Pod()
	if err != nil {
		return contract.Verdict{}, err
	}
	if pod.Metadata.Namespace == "" {
		pod.Metadata.Namespace = in.Namespace
	}
	if !contract.Targets(pod, ns) {
		return contract.Verdict{}, nil
	}
	return contract.Request{Pod: pod, Namespace: ns, Policy: h.policy, Moment: moment}.Evaluate()
}

// workload is what is read of a workload: its pod template.
type workload struct {
	Spec struct {
		Template    *contract.Object `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template *contract.Object `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// validateWorkload tells at kubectl apply what will happen to a workload's pods,
// whose own warnings reach nobody.
func (h *Handler) validateWorkload(in *request[workload], ns contract.Namespace) (contract.Verdict, error) {
	template, prefix := in.Object.Spec.Template, "spec.template."
	if in.Kind.Kind == "CronJob" {
		template, prefix = in.Object.Spec.JobTemplate.Spec.Template, "spec.jobTemplate.spec.template."
	}
	pod, err := template.Pod()
	if err != nil {
		return contract.Verdict{}, err
	}
	pod.Metadata.Namespace = in.Namespace
	daemonSet := in.Kind.Kind == "DaemonSet"
	if daemonSet {
		ns.OptedIn = false // a namespace's label does not mean DaemonSets
	}
	if !contract.Targets(pod, ns) {
		return contract.Verdict{}, nil
	}
	verdict, err := contract.Request{
		Pod: pod, Namespace: ns, Policy: h.policy, Moment: contract.OnTemplate, DaemonSet: daemonSet,
	}.Evaluate()
	for i := range verdict.Findings {
		if f := &verdict.Findings[i]; f.Feature != "daemonset" {
			f.Field = prefix + f.Field
		}
	}
	return verdict, err
}
