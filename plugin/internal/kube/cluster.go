// Package kube reaches the two clusters that the commands act on, with the rights
// of the person who types them: the hub, which holds the pool's records, and the
// target, which nodes are bound to.
package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Cluster is one cluster, as the person who typed the command reaches it.
type Cluster struct {
	// Name is "hub" or "target", for messages.
	Name string
	// Config is how it is reached.
	Config *rest.Config
	// Core speaks Kubernetes' own kinds.
	Core kubernetes.Interface
	// Records speaks AINode and ClusterConfig, nothing else.
	Records client.WithWatch
	// As makes a client that signs with token and acts as user in group.
	As func(token, user, group string) (kubernetes.Interface, error)
	// Probe replaces Healthz where there is no API server to go through.
	Probe func(ctx context.Context, node string) error
	// Scrape replaces NodeMetrics there.
	Scrape func(ctx context.Context, node string) ([]byte, error)
	// Date is the API server's clock; nil where there is none to ask.
	Date func(ctx context.Context) (time.Time, error)
	// Greet is Handshake; nil where there is nobody to greet.
	Greet func(ctx context.Context, a Address) error
	// ContextName is the kubeconfig's name of the cluster; it may be empty.
	ContextName string
}

// Clusters finds the clusters. Neither call does any I/O on the network.
type Clusters interface {
	// Hub is the cluster with the records.
	Hub() (*Cluster, error)
	// Target is the cluster that nodes are bound to; mostly the hub itself.
	Target() (*Cluster, error)
	// Getter reaches the target as kubectl's own packages want it.
	Getter() genericclioptions.RESTClientGetter
}

// Scheme knows AINode and ClusterConfig.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		panic(err) // our own types: a programming error
	}
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	return scheme
}

// Connect makes the clients of a cluster. It does not talk to it yet.
func Connect(name string, cfg *rest.Config) (*Cluster, error) {
	core, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of the %s: %w", name, err)
	}
	// The two kinds are known, so that no discovery call is spent on them.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion.WithKind("AINode"), meta.RESTScopeRoot)
	mapper.Add(v1alpha1.GroupVersion.WithKind("ClusterConfig"), meta.RESTScopeRoot)
	records, err := client.NewWithWatch(cfg, client.Options{Scheme: Scheme(), Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("make a client of the %s: %w", name, err)
	}
	as := func(token, user, group string) (kubernetes.Interface, error) {
		own := rest.AnonymousClientConfig(cfg)
		own.BearerToken = token
		own.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{group}}
		own.WarningHandler, own.WarningHandlerWithContext = rest.NoWarnings{}, nil
		acting, err := kubernetes.NewForConfig(own)
		if err != nil {
			return nil, fmt.Errorf("make a client that acts as %q: %w", user, err)
		}
		return acting, nil
	}
	return &Cluster{Name: name, Config: cfg, Core: core, Records: records, As: as, Greet: Handshake,
		Date: func(ctx context.Context) (time.Time, error) { return dateOf(ctx, cfg) }}, nil
}

// dateOf reads the Date header of an answer of the API server, whatever else it
// answers: also a refusal is dated. It is exact to a second.
func dateOf(ctx context.Context, cfg *rest.Config) (time.Time, error) {
	url, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return time.Time{}, fmt.Errorf("find the API server: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url.JoinPath("version").String(), nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the time: %w", err)
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the time: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	_ = answer.Body.Close()
	return http.ParseTime(answer.Header.Get("Date"))
}

// UID is the cluster's identity: the UID of kube-system, whatever address it
// answers at.
func (c *Cluster) UID(ctx context.Context) (string, error) {
	namespace, err := c.Core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("ask the %s cluster who it is: %w", c.Name, err)
	}
	return string(namespace.UID), nil
}

// Explain makes an error of Records speak of what is missing where the whole kind
// is: an API server then answers 404 as for a missing object, but without a word.
// What it returns then is no 404 any more, so that nobody takes it for one object's.
func Explain(err error) error {
	var status *apierrors.StatusError
	if err == nil || !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return err
	}
	if d := status.Status().Details; d != nil && d.Name != "" && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
		return err
	}
	return remedy.New("Install the chart on the hub first", "helm install ainode charts/ainode --namespace ainode-system --create-namespace",
		"this cluster holds no AI-node records (ainodes.ainode.dev); if the hub is another one, name it with --hub-context: %v", err)
}

// AINode reads one record.
func (c *Cluster) AINode(ctx context.Context, name string) (*v1alpha1.AINode, error) {
	var record v1alpha1.AINode
	if err := c.Records.Get(ctx, client.ObjectKey{Name: name}, &record); err != nil {
		return nil, Explain(err)
	}
	record.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AINode"))
	return &record, nil
}

// AINodes reads all records.
func (c *Cluster) AINodes(ctx context.Context, options ...client.ListOption) (*v1alpha1.AINodeList, error) {
	var list v1alpha1.AINodeList
	if err := c.Records.List(ctx, &list, options...); err != nil {
		return nil, Explain(err)
	}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AINodeList"))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AINode"))
	}
	return &list, nil
}

// ClusterConfig reads one config.
func (c *Cluster) ClusterConfig(ctx context.Context, name string) (*v1alpha1.ClusterConfig, error) {
	var config v1alpha1.ClusterConfig
	if err := c.Records.Get(ctx, client.ObjectKey{Name: name}, &config); err != nil {
		return nil, Explain(err)
	}
	return &config, nil
}

// ClusterConfigs reads all configs.
func (c *Cluster) ClusterConfigs(ctx context.Context, options ...client.ListOption) (*v1alpha1.ClusterConfigList, error) {
	var list v1alpha1.ClusterConfigList
	if err := c.Records.List(ctx, &list, options...); err != nil {
		return nil, Explain(err)
	}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ClusterConfigList"))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ClusterConfig"))
	}
	return &list, nil
}

// Healthz asks a node's kubelet API for its health through the API server, the way
// that kubectl logs and exec take.
func (c *Cluster) Healthz(ctx context.Context, node string) error {
	if c.Probe != nil {
		return c.Probe(ctx, node)
	}
	return c.Core.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("healthz").Do(ctx).Error()
}

// NodeMetrics reads the metrics of a node's agent through the API server.
func (c *Cluster) NodeMetrics(ctx context.Context, node string) ([]byte, error) {
	if c.Scrape != nil {
		return c.Scrape(ctx, node)
	}
	return c.Core.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("metrics").DoRaw(ctx)
}
