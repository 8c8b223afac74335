// Package configs keeps the imported clusters: what an import writes, how configs
// are shown, and when one may be deleted.
package configs

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

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
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return fmt.Errorf("%q is no name of a config: %s", name, problems[0])
	}
	return nil
}

// Seen is what an import has read of the target.
type Seen struct {
	Address kube.Address
	UID     string
	Version string
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
	return s, nil
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

// Import writes the config on the hub and says what it did.
func Import(ctx context.Context, hub *kube.Cluster, name string, seen Seen) (string, error) {
	spec := v1alpha1.ClusterConfigSpec{
		Server: seen.Address.Server, TLSServerName: seen.Address.TLSServerName,
		CertificateAuthorityData: seen.Address.CAData, ClusterUID: seen.UID,
	}
	did := Unchanged
	config, err := hub.ClusterConfig(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		config = &v1alpha1.ClusterConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if err := hub.Records.Create(ctx, config); err != nil {
			return "", fmt.Errorf("create config %q: %w", name, kube.Explain(err))
		}
		did = Imported
	case err != nil:
		return "", fmt.Errorf("read config %q: %w", name, err)
	case config.Spec.ClusterUID != seen.UID:
		return "", remedy.New("Import this one under another name", "kubectl ainode import NAME",
			"config %q is of another cluster (kube-system has UID %s there, %s here)", name, config.Spec.ClusterUID, seen.UID)
	case !same(config.Spec, spec):
		config.Spec = spec
		if err := hub.Records.Update(ctx, config); err != nil {
			return "", fmt.Errorf("update config %q: %w", name, err)
		}
		did = Updated
	}
	if config.Status.KubernetesVersion == seen.Version {
		return did, nil
	}
	config.Status.KubernetesVersion = seen.Version
	if err := hub.Records.Status().Update(ctx, config); err != nil {
		return "", fmt.Errorf("write the status of config %q: %w", name, err)
	}
	if did == Unchanged {
		did = Updated
	}
	return did, nil
}

func same(a, b v1alpha1.ClusterConfigSpec) bool {
	return a.Server == b.Server && a.TLSServerName == b.TLSServerName && a.ClusterUID == b.ClusterUID &&
		string(a.CertificateAuthorityData) == string(b.CertificateAuthorityData)
}
