package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"k8s.io/component-base/version"

	"github.com/ainode/ainode/api/contract"
)

// options are the program's flags.
type options struct {
	address, healthAddress, metricsAddress string

	namespace, service, secret       string
	mutatingConfig, validatingConfig string

	policy           contract.Policy
	assumeRestricted bool

	housekeeper, hub bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{policy: contract.Policy{Overrides: map[contract.Feature]contract.Action{}}}
	f := flag.NewFlagSet("ainode-webhook", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.address, "listen-address", ":9443", "where the API server calls (TLS)")
	f.StringVar(&o.healthAddress, "health-address", ":8081", "/healthz and /readyz (plain HTTP)")
	f.StringVar(&o.metricsAddress, "metrics-address", ":8080", "/metrics (plain HTTP); 0 turns it off")
	f.StringVar(&o.namespace, "namespace", contract.SystemNamespace, "the namespace of service, secret and leader lease")
	f.StringVar(&o.service, "service", "ainode-webhook", "the service that the API server calls")
	f.StringVar(&o.secret, "secret", "ainode-webhook-certs", "the secret that holds the serving certificate and its authority")
	f.StringVar(&o.mutatingConfig, "mutating-config", "ainode-webhook", "our MutatingWebhookConfiguration, to put the CA into")
	f.StringVar(&o.validatingConfig, "validating-config", "ainode-webhook", "our ValidatingWebhookConfiguration, to put the CA into")
	f.Func("profile", fmt.Sprintf("column of the support table: %s (default) or %s", contract.ProfileAliclouddb, contract.ProfileAgent), func(s string) error {
		o.policy.Profile = contract.Profile(s)
		return o.policy.Validate()
	})
	f.Func("feature", "FEATURE=MODE, another mode (allow, warn, strip, deny) for one feature of the support table; may be repeated", func(s string) error {
		feature, mode, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("write FEATURE=MODE")
		}
		o.policy.Overrides[contract.Feature(feature)] = contract.Action(mode)
		return o.policy.Validate()
	})
	f.Func("nameserver", "IP of a DNS server for pods that asked for the cluster's; may be repeated", func(s string) error {
		if net.ParseIP(s) == nil {
			return fmt.Errorf("%q is no IP address", s)
		}
		o.policy.Nameservers = append(o.policy.Nameservers, s)
		return nil
	})
	f.Func("token-namespace", "namespace whose pods keep their service-account tokens, with --profile="+string(contract.ProfileAgent)+"; may be repeated", func(s string) error {
		o.policy.TokenNamespaces = append(o.policy.TokenNamespaces, s)
		return nil
	})
	f.Func("unreachable-seconds", "seconds that a pod stays bound to a node that is not ready or unreachable, in place of the API server's 300; 0 (default) leaves those", func(s string) (err error) {
		if o.policy.UnreachableSeconds, err = strconv.ParseInt(s, 10, 64); err != nil {
			return errors.New("write a number of seconds")
		}
		return o.policy.Validate()
	})
	f.BoolVar(&o.assumeRestricted, "assume-restricted", false, "treat every namespace as one that enforces Pod Security restricted (clusters whose default level that is)")
	f.BoolVar(&o.housekeeper, "housekeeper", true, "clear up after AI nodes that have been given back, where the plugin did not")
	f.BoolVar(&o.hub, "hub", false, "this cluster holds the pool's records (AINode, ClusterConfig) as well")
	show := f.Bool("version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return o, fmt.Errorf("read the flags: %w", err)
	}
	if *show {
		fmt.Fprintln(stderr, version.Get().GitVersion)
		return o, flag.ErrHelp
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: only flags are taken", f.Arg(0))
	}
	return o, nil
}
