package crispec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of resolv.conf (pkg/apis/core/validation).
const (
	maxNameservers = 3
	maxSearches    = 32
)

// NodeResolv is what the machine's resolv.conf says.
type NodeResolv struct {
	Nameservers, Searches, Options []string
}

// ParseResolv reads the text of a resolv.conf. Lines that it does not know are
// skipped; of several search lines the last counts, as in the resolver.
func ParseResolv(text string) NodeResolv {
	var r NodeResolv
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.Nameservers = append(r.Nameservers, fields[1])
		case "search", "domain":
			r.Searches = nil
			for _, s := range fields[1:] {
				r.Searches = append(r.Searches, strings.TrimSuffix(s, "."))
			}
		case "options":
			r.Options = append(r.Options, fields[1:]...)
		}
	}
	return r
}

// DNS is the resolv.conf of a pod: the machine's, or with dnsPolicy None none, and
// what its dnsConfig adds. The cluster's DNS service can't be reached from an AI
// node, so ClusterFirst is Default.
func DNS(pod *corev1.Pod, node NodeResolv) *runtimeapi.DNSConfig {
	d := &runtimeapi.DNSConfig{}
	if pod.Spec.DNSPolicy != corev1.DNSNone {
		d.Servers = slices.Clone(node.Nameservers)
		d.Searches = slices.Clone(node.Searches)
		d.Options = slices.Clone(node.Options)
	}
	if more := pod.Spec.DNSConfig; more != nil {
		d.Servers = appendNew(d.Servers, more.Nameservers)
		d.Searches = appendNew(d.Searches, more.Searches)
		for _, o := range more.Options {
			d.Options = slices.DeleteFunc(d.Options, func(known string) bool {
				name, _, _ := strings.Cut(known, ":")
				return name == o.Name
			})
			if o.Value != nil && *o.Value != "" {
				d.Options = append(d.Options, o.Name+":"+*o.Value)
			} else {
				d.Options = append(d.Options, o.Name)
			}
		}
	}
	d.Servers = d.Servers[:min(len(d.Servers), maxNameservers)]
	d.Searches = d.Searches[:min(len(d.Searches), maxSearches)]
	return d
}

func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
