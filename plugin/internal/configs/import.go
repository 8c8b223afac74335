// Package configs keeps the imported clusters: what an import writes, how configs
// are shown, and when one may be deleted.
package configs

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// ImportRights are what Import needs: to read on the target, to write the config on
// the hub.
func ImportRights(hub, target *kube.Cluster) []preflight.Needs {
	return []preflight.Needs{
		{Cluster: target, Rights: []preflight.Right{
			{Verb: "get", Resource: "namespaces", Name: metav1.NamespaceSystem},
		}},
		{Cluster: hub, Rights: []preflight.Right{
			{Verb: "list", Group: contract.Group, Resource: "clusterconfigs"},
			{Verb: "create", Group: contract.Group, Resource: "clusterconfigs"},
			{Verb: "update", Group: contract.Group, Resource: "clusterconfigs"},
			{Verb: "update", Group: contract.Group, Resource: "clusterconfigs", Subresource: "status"},
		}},
	}
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// DefaultName makes a config's name of the kubeconfig's name of the cluster.
func DefaultName(cluster string) string {
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(cluster), "-"), "-")
	if len(name) > validation.DNS1123LabelMaxLength {
		name = strings.Trim(name[len(name)-validation.DNS1123LabelMaxLength:], "-")
	}
	return name
}

// ValidateName says whether a config may be called name.
func ValidateName(name string) error {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return fmt.Errorf("%q is no name of a config: it has lower case letters, digits, dashes and dots alone, and begins and ends with a letter or digit", name)
	}
	return nil
}

// Seen is what an import has read of the target.
type Seen struct {
	Address kube.Address
	UID     string
	Version string
	// Unreached is why the address was not reached from here the way machines take;
	// nil where it was.
	Unreached error
}

// Look reads the target. It changes nothing.
func Look(ctx context.Context, target *kube.Cluster, server, flag string) (Seen, error) {
	var s Seen
	var err error
	if s.Address, err = target.Address(ctx, server, flag); err != nil {
		return s, err
	}
	if s.UID, err = target.UID(ctx); err != nil {
		return s, err
	}
	version, err := target.Core.Discovery().ServerVersion()
	if err != nil {
		return s, fmt.Errorf("ask the target cluster for its version: %w", err)
	}
	s.Version = version.GitVersion
	s.Unreached, err = target.Greeted(ctx, s.Address, flag)
	return s, err
}

// Others are the names of the other configs of the same cluster.
func Others(configs []v1alpha1.ClusterConfig, name, uid string) []string {
	var names []string
	for _, c := range configs {
		if c.Name != name && c.Spec.ClusterUID == uid {
			names = append(names, c.Name)
		}
	}
	return names
}

// What Import did.
const (
	Imported  = "imported"
	Updated   = "configured"
	Unchanged = "unchanged"
)

// Done is what Import did.
type Done struct {
	// What is Imported, Updated or Unchanged.
	What string
	// Changes tell, where nodes may be bound to it already, what is another now.
	Changes []string
	// Bound are those nodes: they keep the address and the CA that they were bound with.
	Bound []string
}

// Import writes the config on the hub and says what it did. A config stays one
// cluster's, whatever is bound to it. write false sends nothing; with
// metav1.DryRunAll for dry nothing is kept.
func Import(ctx context.Context, hub *kube.Cluster, name string, seen Seen, write bool, dry ...string) (Done, error) {
	spec := v1alpha1.ClusterConfigSpec{
		Server: seen.Address.Server, TLSServerName: seen.Address.TLSServerName,
		CertificateAuthorityData: seen.Address.CAData, ClusterUID: seen.UID,
	}
	done := Done{What: Unchanged}
	config, err := hub.ClusterConfig(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		config = &v1alpha1.ClusterConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if write {
			err = hub.Records.Create(ctx, config, &client.CreateOptions{DryRun: dry})
		}
		if done.What = Imported; write && err != nil {
			return done, fmt.Errorf("create config %q: %w", name, kube.Explain(err))
		}
	case err != nil:
		return done, fmt.Errorf("read config %q: %w", name, err)
	case config.Spec.ClusterUID != seen.UID:
		return done, another(config, seen)
	default:
		if done.Changes = changes(config.Spec, spec); len(done.Changes) == 0 {
			break
		}
		done.What, done.Bound = Updated, config.Status.BoundNodes
		config.Spec = spec
		if !write {
			break
		}
		if err := hub.Records.Update(ctx, config, &client.UpdateOptions{DryRun: dry}); err != nil {
			return done, fmt.Errorf("update config %q: %w", name, err)
		}
	}
	if config.Status.KubernetesVersion == seen.Version {
		return done, nil
	}
	if done.What == Unchanged {
		done.What = Updated
	}
	if !write || len(dry) > 0 && done.What == Imported {
		return done, nil // there is nothing whose status could be tried
	}
	config.Status.KubernetesVersion = seen.Version
	if err := hub.Records.Status().Update(ctx, config, &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: dry}}); err != nil {
		return done, fmt.Errorf("write the status of config %q: %w", name, err)
	}
	return done, nil
}

// another is the refusal to make a config another cluster's.
func another(config *v1alpha1.ClusterConfig, seen Seen) error {
	bound := ""
	switch n := config.Status.BoundNodes; len(n) {
	case 0:
	case 1:
		bound = fmt.Sprintf(", and %s is bound to it", n[0])
	default:
		bound = fmt.Sprintf(", and %s are bound to it", strings.Join(n, ", "))
	}
	return &remedy.Error{
		Err: remedy.New("Import this one under another name", "kubectl ainode import NAME",
			"config %q is of another cluster (kube-system has UID %s there, %s here)%s", config.Name, config.Spec.ClusterUID, seen.UID, bound),
		Say: "Or, if that cluster is gone for good, forget it first", Command: "kubectl ainode delete-config " + config.Name,
	}
}

// changes say how is differs from was.
func changes(was, is v1alpha1.ClusterConfigSpec) []string {
	var all []string
	if was.Server != is.Server {
		all = append(all, fmt.Sprintf("its server was %s, now %s", was.Server, is.Server))
	}
	if was.TLSServerName != is.TLSServerName {
		all = append(all, fmt.Sprintf("the name in its certificate was %q, now %q", was.TLSServerName, is.TLSServerName))
	}
	if !bytes.Equal(was.CertificateAuthorityData, is.CertificateAuthorityData) {
		all = append(all, "its CA is another one than before")
	}
	return all
}
