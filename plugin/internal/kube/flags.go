package kube

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Flags are kubectl's connection flags, which name the target, and two of our own
// for the case that the hub is another cluster.
type Flags struct {
	*genericclioptions.ConfigFlags

	// HubKubeconfig and HubContext name the hub where it is not the target.
	HubKubeconfig string
	HubContext    string

	// UserAgent is how the commands name themselves to API servers.
	UserAgent string
	// Warnings gets what API servers warn of.
	Warnings io.Writer
	// Color says whether Warnings may be coloured.
	Color bool

	once   sync.Once
	target *Cluster
	err    error
}

var _ Clusters = (*Flags)(nil)

// NewFlags makes Flags with kubectl's defaults.
func NewFlags(userAgent string, warnings io.Writer, color bool) *Flags {
	return &Flags{
		ConfigFlags: genericclioptions.NewConfigFlags(true),
		UserAgent:   userAgent, Warnings: warnings, Color: color,
	}
}

// AddFlags adds kubectl's flags and ours.
func (f *Flags) AddFlags(flags *pflag.FlagSet) {
	f.ConfigFlags.AddFlags(flags)
	flags.StringVar(&f.HubContext, "hub-context", f.HubContext,
		"The kubeconfig context of the hub, the cluster that holds the pool's records, if it is not the cluster that the nodes are bound to.")
	flags.StringVar(&f.HubKubeconfig, "hub-kubeconfig", f.HubKubeconfig,
		"The kubeconfig file of the hub, if it is another one.")
}

// Target implements Clusters.
func (f *Flags) Target() (*Cluster, error) {
	f.once.Do(func() { f.target, f.err = f.connect("target", f.ConfigFlags) })
	return f.target, f.err
}

// Hub implements Clusters.
func (f *Flags) Hub() (*Cluster, error) {
	if f.HubContext == "" && f.HubKubeconfig == "" {
		target, err := f.Target()
		if err != nil {
			return nil, err
		}
		hub := *target
		hub.Name = "hub"
		return &hub, nil
	}
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig = ptr.To(f.HubKubeconfig)
	if f.HubKubeconfig == "" {
		flags.KubeConfig = f.KubeConfig
	}
	flags.Context = ptr.To(f.HubContext)
	// Who acts is a matter of the person, not of the cluster.
	flags.Impersonate, flags.ImpersonateGroup, flags.ImpersonateUID = f.Impersonate, f.ImpersonateGroup, f.ImpersonateUID
	flags.Timeout = f.Timeout
	return f.connect("hub", flags)
}

// Getter implements Clusters.
func (f *Flags) Getter() genericclioptions.RESTClientGetter {
	f.WrapConfigFn = f.own
	return f.ConfigFlags
}

// own makes cfg one of these commands'.
func (f *Flags) own(cfg *rest.Config) *rest.Config {
	cfg.UserAgent = f.UserAgent
	cfg.QPS, cfg.Burst = 50, 100
	cfg.WarningHandlerWithContext = warnings{rest.NewWarningWriter(f.Warnings, rest.WarningWriterOptions{Deduplicate: true, Color: f.Color})}
	return cfg
}

func (f *Flags) connect(name string, flags *genericclioptions.ConfigFlags) (*Cluster, error) {
	cfg, err := flags.ToRESTConfig()
	if err != nil {
		return nil, remedy.New("See what your kubeconfig has", "kubectl config get-contexts", "find the %s cluster: %w", name, err)
	}
	if err := named(flags, cfg); err != nil {
		return nil, err
	}
	if end := ended(cfg, time.Now()); !end.IsZero() {
		// No error: which clock is right is the API server's to say.
		fmt.Fprintf(f.Warnings, "Warning: your kubeconfig has a client certificate for the %s cluster that ended %s: get a new one from where you have the kubeconfig\n",
			name, end.UTC().Format(time.RFC3339))
	}
	cluster, err := Connect(name, f.own(cfg))
	if err != nil {
		return nil, err
	}
	if raw, err := flags.ToRawKubeConfigLoader().RawConfig(); err == nil {
		current := raw.CurrentContext
		if c := ptr.Deref(flags.Context, ""); c != "" {
			current = c
		}
		if context := raw.Contexts[current]; context != nil {
			cluster.ContextName = context.Cluster
		}
	}
	return cluster, nil
}

// named fails where nothing names a cluster: kubectl's own default is a port of
// this computer, on which hardly ever one answers.
func named(flags *genericclioptions.ConfigFlags, cfg *rest.Config) error {
	if cfg.Host != "http://localhost:8080" || ptr.Deref(flags.APIServer, "") != "" || os.Getenv("KUBERNETES_MASTER") != "" {
		return nil
	}
	loader := flags.ToRawKubeConfigLoader()
	files := strings.Join(loader.ConfigAccess().GetLoadingPrecedence(), ", ")
	raw, err := loader.RawConfig()
	if err == nil && len(raw.Contexts) > 0 {
		return remedy.New("Choose a context", "kubectl config use-context CONTEXT", "your kubeconfig (%s) has no current context", files)
	}
	return remedy.New("Name a file that has one", "export KUBECONFIG=FILE", "no cluster is named: %s names none", files)
}
