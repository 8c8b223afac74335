package contract

import "fmt"

// hostNetwork is row host-network of SUPPORT.md: removed with the hostPorts that the API
// server filled in because of it; with hostNetwork every hostPort equals its
// containerPort.
//
//	host-network: spec.hostNetwork was removed: an AI node's network is not the cluster's
func hostNetwork(r *review) {
	if !r.pod.Spec.HostNetwork {
		return
	}
	edits := []edit{remove("/spec/hostNetwork")}
	r.pod.containers(func(c *Container) {
		for i, port := range c.Ports {
			if port.HostPort != 0 && port.HostPort == port.ContainerPort {
				edits = append(edits, remove(fmt.Sprintf("%s/ports/%d/hostPort", c.path, i)))
			}
		}
	})
	r.find(Finding{
		Field: "spec.hostNetwork", Action: Strip, Old: raw(true),
		Detail: "an AI node's network is not the cluster's",
		Remedy: "remove it; the pod is reached at its podIP",
	}, edits...)
}

// hostPort is row host-port of SUPPORT.md: hostPort and hostIP are removed. With
// hostNetwork the ports are host-network's finding.
func hostPort(r *review) {
	r.pod.containers(func(c *Container) {
		for i, port := range c.Ports {
			field, path := fmt.Sprintf("%s.ports[%d]", c.field, i), fmt.Sprintf("%s/ports/%d", c.path, i)
			const detail = "the containerPort answers at the podIP"
			const remedy = "remove it and call the containerPort at the podIP"
			if port.HostPort != 0 && (!r.pod.Spec.HostNetwork || port.HostPort != port.ContainerPort) {
				r.find(Finding{Field: field + ".hostPort", Action: Strip, Old: raw(port.HostPort), Detail: detail, Remedy: remedy},
					remove(path+"/hostPort"))
			}
			if port.HostIP != "" {
				r.find(Finding{Field: field + ".hostIP", Action: Strip, Old: raw(port.HostIP), Detail: detail, Remedy: remedy},
					remove(path+"/hostIP"))
			}
		}
	})
}

func hostPID(r *review) {
	if r.pod.Spec.HostPID {
		r.find(Finding{
			Field: "spec.hostPID", Action: Strip, Old: raw(true), Detail: "a pod sees its own processes only",
		}, remove("/spec/hostPID"))
	}
}

func hostIPC(r *review) {
	if r.pod.Spec.HostIPC {
		r.find(Finding{
			Field: "spec.hostIPC", Action: Strip, Old: raw(true), Detail: "a pod has its own IPC namespace",
			Remedy: "remove it; share memory between containers by an emptyDir with medium: Memory",
		}, remove("/spec/hostIPC"))
	}
}
