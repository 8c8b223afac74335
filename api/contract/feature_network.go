package contract

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// dns is row dns of SUPPORT.md: the cluster's DNS is not there, so what asks for it gets
// the machine's, or the configured nameservers where the pod names none itself.
func dns(r *review) {
	spec := &r.pod.Spec
	switch corev1.DNSPolicy(spec.DNSPolicy) {
	case "", corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet:
	default:
		return
	}
	f := Finding{Field: "spec.dnsPolicy", Action: Normalise, Routine: r.override == "", Remedy: "set dnsPolicy: Default, or None with a dnsConfig"}
	if spec.DNSPolicy != "" {
		f.Old = raw(spec.DNSPolicy)
	}
	if r.override != "" {
		f.Detail = "the cluster's DNS is not there on AI nodes"
		r.find(f)
		return
	}
	if len(r.Policy.Nameservers) == 0 || spec.DNSConfig != nil && len(spec.DNSConfig.Nameservers) > 0 {
		f.Detail = "dnsPolicy is Default"
		r.find(f, set("/spec/dnsPolicy", string(corev1.DNSDefault)))
		return
	}
	f.Detail = "dnsPolicy is None with nameservers " + strings.Join(r.Policy.Nameservers, " ")
	servers := set("/spec/dnsConfig/nameservers", r.Policy.Nameservers)
	if spec.DNSConfig == nil {
		servers = set("/spec/dnsConfig", map[string]any{"nameservers": r.Policy.Nameservers})
	}
	r.find(f, set("/spec/dnsPolicy", string(corev1.DNSNone)), servers)
}

// serviceAccess is row service-access of SUPPORT.md: a pod cannot call Services. Only the
// field is told, never its value: it may hold a secret.
//
//	service-access: spec.containers[0].env[2].value: pods on AI nodes cannot call Services
func serviceAccess(r *review) {
	tell := func(field string) {
		r.find(Finding{
			Field: field, Action: Warn, Detail: "pods on AI nodes cannot call Services",
			Remedy: "use an address that is reached from outside the cluster",
		})
	}
	r.pod.containers(func(c *Container) {
		for i, s := range c.Command {
			if namesService(s) {
				tell(fmt.Sprintf("%s.command[%d]", c.field, i))
			}
		}
		for i, s := range c.Args {
			if namesService(s) {
				tell(fmt.Sprintf("%s.args[%d]", c.field, i))
			}
		}
		for i, env := range c.Env {
			if namesService(env.Value) {
				tell(fmt.Sprintf("%s.env[%d].value", c.field, i))
			}
		}
	})
}

// namesService looks for a host name that holds the label svc (a.b.svc,
// a.b.svc.cluster.local) and for $(…_SERVICE_HOST).
func namesService(s string) bool {
	if before, _, found := strings.Cut(s, "_SERVICE_HOST)"); found && strings.Contains(before, "$(") {
		return true
	}
	const label = ".svc"
	for rest := s; ; {
		before, after, found := strings.Cut(rest, label)
		if !found {
			return false
		}
		if before != "" && hostNameByte(before[len(before)-1]) && (after == "" || !hostNameByte(after[0])) {
			return true
		}
		rest = after
	}
}

func hostNameByte(b byte) bool {
	return b == '-' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '_'
}

// aiNodeTopologies are the topology keys that an AI node's labels answer.
var aiNodeTopologies = []string{corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

func (r *review) topology(field, key string) {
	if key == "" || slices.Contains(aiNodeTopologies, key) {
		return
	}
	r.find(Finding{
		Field: field + ".topologyKey", Action: Warn, Old: raw(key),
		Detail: fmt.Sprintf("AI nodes carry no topology label %s", cut(key, 80)),
		Remedy: "use " + strings.Join(aiNodeTopologies, ", "),
	})
}

// podAffinity is row pod-affinity of SUPPORT.md: allowed; a topology that AI nodes do not
// have is told.
func podAffinity(r *review) {
	a := r.pod.Spec.Affinity
	if a == nil {
		return
	}
	for _, kind := range []struct {
		field  string
		spread *Spread
	}{{"spec.affinity.podAffinity", a.PodAffinity}, {"spec.affinity.podAntiAffinity", a.PodAntiAffinity}} {
		if kind.spread == nil {
			continue
		}
		for i, t := range kind.spread.Required {
			r.topology(fmt.Sprintf("%s.requiredDuringSchedulingIgnoredDuringExecution[%d]", kind.field, i), t.TopologyKey)
		}
		for i, t := range kind.spread.Preferred {
			r.topology(fmt.Sprintf("%s.preferredDuringSchedulingIgnoredDuringExecution[%d].podAffinityTerm", kind.field, i), t.Term.TopologyKey)
		}
	}
}

// topologySpread is row topology-spread of SUPPORT.md: like podAffinity.
func topologySpread(r *review) {
	for i, t := range r.pod.Spec.TopologySpreadConstraints {
		r.topology(fmt.Sprintf("spec.topologySpreadConstraints[%d]", i), t.TopologyKey)
	}
}
