package contract

import (
	"fmt"
	"net/netip"
	"slices"
)

// Profile is a column of the support table.
type Profile string

// The profiles.
const (
	// ProfileAliclouddb promises what the vendor's AI nodes promise. The default.
	ProfileAliclouddb Profile = "aliclouddb"
	// ProfileAgent also allows what our own node agent honours; host access stays out.
	ProfileAgent Profile = "agent"
)

// nameserversAtMost is how many the API server takes in a pod's dnsConfig.
const nameserversAtMost = 3

// Policy is how a cluster's owner wants the table applied. Its zero value is the
// default profile without overrides.
type Policy struct {
	Profile Profile
	// Overrides set another mode for single features.
	Overrides map[Feature]Action
	// Nameservers are given to pods that asked for the cluster's DNS; none: such
	// pods use the machine's.
	Nameservers []string
	// UnreachableSeconds is how long a pod stays bound to a node that is not ready or
	// unreachable, in place of the API server's 300 s; 0 leaves those. A blip of the
	// network must not end a training run.
	UnreachableSeconds int64
	// TokenNamespaces are where pods keep their service-account tokens, in the profile
	// agent: the target lets AI nodes ask for tokens there, and nowhere else.
	TokenNamespaces []string
}

// Validate names the first setting that the table does not know.
func (p Policy) Validate() error {
	if !slices.Contains([]Profile{"", ProfileAliclouddb, ProfileAgent}, p.Profile) {
		return fmt.Errorf("profile %q is not known: it is %q or %q", p.Profile, ProfileAliclouddb, ProfileAgent)
	}
	if p.UnreachableSeconds < 0 {
		return fmt.Errorf("toleration of unreachable nodes of %d s: it is a number of seconds, 0 leaves the API server's", p.UnreachableSeconds)
	}
	if len(p.Nameservers) > nameserversAtMost {
		return fmt.Errorf("%d nameservers: the API server takes %d of a pod, and would refuse every one", len(p.Nameservers), nameserversAtMost)
	}
	for _, server := range p.Nameservers {
		if _, err := netip.ParseAddr(server); err != nil {
			return fmt.Errorf("nameserver %q is no IP address", server)
		}
	}
	if len(p.TokenNamespaces) > 0 && p.Profile != ProfileAgent {
		return fmt.Errorf("namespaces with tokens: only in the profile %q", ProfileAgent)
	}
	for feature, mode := range p.Overrides {
		row, ok := Lookup(feature)
		if !ok {
			return fmt.Errorf("feature %q is not in the support table", feature)
		}
		if mode != row.Default && !slices.Contains(row.Overrides, mode) {
			return fmt.Errorf("feature %q cannot be set to %q: it can be %q", feature, mode, append([]Action{row.Default}, row.Overrides...))
		}
	}
	return nil
}

// keepsTokens reports whether pods of the namespace keep their tokens.
func (p Policy) keepsTokens(namespace string) bool {
	return p.Profile == ProfileAgent && slices.Contains(p.TokenNamespaces, namespace)
}

// override is the mode that p sets for row where it differs from the table.
func (p Policy) override(row *Row) Action {
	column := row.Default
	if p.Profile == ProfileAgent {
		column = row.Agent
	}
	mode, ok := p.Overrides[row.Feature]
	if !ok || mode == column {
		return ""
	}
	return mode
}
