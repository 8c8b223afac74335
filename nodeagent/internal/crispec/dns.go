package crispec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of resolv.conf (pkg/apis/core/validation). Some resolvers abort on a search
// domain that is longer than a name can be (glibc 2.28).
const (
	maxNameservers   = 3
	maxSearches      = 32
	maxSearchDomain  = 253
	maxSearchesChars = 2048 // the whole line
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
				if s != "." {
					r.Searches = append(r.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			r.Options = append(r.Options, fields[1:]...)
		}
	}
	return r
}

// DNS is the resolv.conf of a pod: the machine's, or with dnsPolicy None none, and
// what its dnsConfig adds. The cluster's DNS service can't be reached from an AI
// node, so ClusterFirst is Default. What does not fit is left out, and told in the
// kubelet's words.
func DNS(pod *corev1.Pod, node NodeResolv) (d *runtimeapi.DNSConfig, omitted []string) {
	d = &runtimeapi.DNSConfig{}
	if pod.Spec.DNSPolicy != corev1.DNSNone {
		d.Servers = appendNew(nil, node.Nameservers)
		d.Searches = appendNew(nil, node.Searches)
		d.Options = setOptions(nil, node.Options...)
	}
	if more := pod.Spec.DNSConfig; more != nil {
		d.Servers = appendNew(d.Servers, more.Nameservers)
		d.Searches = appendNew(d.Searches, more.Searches)
		for _, o := range more.Options {
			if o.Value != nil && *o.Value != "" {
				d.Options = setOptions(d.Options, o.Name+":"+*o.Value)
			} else {
				d.Options = setOptions(d.Options, o.Name)
			}
		}
	}
	if len(d.Servers) > maxNameservers {
		d.Servers = d.Servers[:maxNameservers]
		omitted = append(omitted, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+strings.Join(d.Servers, " "))
	}
	if fitting := fittingSearches(d.Searches); len(fitting) < len(d.Searches) {
		d.Searches = fitting
		omitted = append(omitted, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+strings.Join(d.Searches, " "))
	}
	return d, omitted
}

// fittingSearches are the first of searches that resolvers take.
func fittingSearches(searches []string) []string {
	var fitting []string
	chars := -1 // the space before the first is none
	for _, s := range searches[:min(len(searches), maxSearches)] {
		if len(s) > maxSearchDomain {
			continue
		}
		if chars += 1 + len(s); chars > maxSearchesChars {
			break
		}
		fitting = append(fitting, s)
	}
	return fitting
}

// setOptions adds resolver options, each in the place of an earlier one of its name.
func setOptions(options []string, more ...string) []string {
	for _, o := range more {
		name, _, _ := strings.Cut(o, ":")
		options = slices.DeleteFunc(options, func(known string) bool {
			before, _, _ := strings.Cut(known, ":")
			return before == name
		})
		options = append(options, o)
	}
	return options
}

func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
