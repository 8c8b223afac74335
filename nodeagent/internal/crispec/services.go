package crispec

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceEnv are the variables that tell a pod's containers of Services, those that
// Docker's links had among them: of the API server's Service always, of the pod's own
// namespace's unless enableServiceLinks is false. services may hold others too. One
// without an address is no news: a headless one has none, an ExternalName neither
// (kubelet, pkg/kubelet/envvars).
func ServiceEnv(pod *corev1.Pod, services []*corev1.Service) map[string]string {
	env := map[string]string{}
	var own []*corev1.Service
	for _, s := range services {
		switch {
		case s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0:
		case s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes":
			link(env, s)
		case s.Namespace == pod.Namespace && (pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks):
			own = append(own, s)
		}
	}
	for _, s := range own { // last, so that a namespace's own "kubernetes" wins
		link(env, s)
	}
	return env
}

// link adds the variables of one Service.
func link(env map[string]string, s *corev1.Service) {
	name := variable(s.Name)
	env[name+"_SERVICE_HOST"] = s.Spec.ClusterIP
	env[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			env[name+"_SERVICE_PORT_"+variable(p.Name)] = port
		}
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = string(corev1.ProtocolTCP)
		}
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if i == 0 {
			env[name+"_PORT"] = url
		}
		prefix := fmt.Sprintf("%s_PORT_%s_%s", name, port, strings.ToUpper(protocol))
		env[prefix] = url
		env[prefix+"_PROTO"] = strings.ToLower(protocol)
		env[prefix+"_PORT"] = port
		env[prefix+"_ADDR"] = s.Spec.ClusterIP
	}
}

// variable is how a name stands in those of variables.
func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
