package binding

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/e2e/story"
)

const (
	tools = "demo.local/tools:v1"
	// stateDir is where an agent keeps what it remembers, in its machine's own /var/lib.
	stateDir = "/var/lib/ainode-agent"
	// patience is for a busy machine; nothing is measured by it.
	patience = 3 * time.Minute
	// person is who types: somebody with the role that the plugin's own words grant.
	person = "kim@example.com"
)

// plane is one cluster; its name is its config's and its context's.
type plane struct {
	*story.Story
	client.Client
	name string
	rest *rest.Config
}

// machine is one GPU machine and the AI node that it is. Machines are in cluster a's
// network.
type machine struct {
	story.Machine
	node string
}

// stage is all of it.
type stage struct {
	a, b     *plane
	one, two machine
	// clone is a machine that is no AI node yet.
	clone machine
	// kubeconfig has both clusters, under their names.
	kubeconfig string
}

func newPlane(t *testing.T, root, name string) *plane {
	t.Helper()
	return &plane{Story: &story.Story{Root: root, Dir: filepath.Join(root, ".build", "binding", name), Out: t.Output()}, name: name}
}

// up brings the cluster up and installs the chart with these values.
func (p *plane) up(ctx context.Context, machines int, set ...string) error {
	if err := p.ClusterUpWith(ctx, machines); err != nil {
		return err
	}
	load := p.LoadNodeImages
	if machines > 0 {
		load = p.LoadImages
	}
	if err := load(ctx); err != nil {
		return err
	}
	if err := p.UpgradeChart(ctx, append(set, "replicaCount=1", "podDisruptionBudget=false")...); err != nil {
		return err
	}
	var err error
	if p.rest, err = clientcmd.BuildConfigFromFlags("", p.Kubeconfig()); err != nil {
		return err
	}
	p.rest.QPS, p.rest.WarningHandler = -1, rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	p.Client, err = client.New(p.rest, client.Options{Scheme: scheme})
	return err
}

// devcluster runs one of devcluster's verbs on this cluster.
func (p *plane) devcluster(ctx context.Context, verb string, args ...string) (string, error) {
	return p.Run(ctx, "devcluster", append([]string{verb, "--dir", p.Dir}, args...)...)
}

// writeKubeconfig writes one with both clusters, reached at these servers.
func (s *stage) writeKubeconfig(t *testing.T, file string, servers map[*plane]string) string {
	t.Helper()
	both := clientcmdapi.NewConfig()
	for _, p := range []*plane{s.a, s.b} {
		own, err := clientcmd.LoadFromFile(p.Kubeconfig())
		require.NoError(t, err)
		current := own.Contexts[own.CurrentContext]
		own.AuthInfos[current.AuthInfo].Impersonate = person
		both.Clusters[p.name], both.AuthInfos[p.name] = own.Clusters[current.Cluster], own.AuthInfos[current.AuthInfo]
		if server := servers[p]; server != "" {
			both.Clusters[p.name], both.AuthInfos[p.name] = &clientcmdapi.Cluster{Server: server}, &clientcmdapi.AuthInfo{}
		}
		both.Contexts[p.name] = &clientcmdapi.Context{Cluster: p.name, AuthInfo: p.name}
	}
	require.NoError(t, clientcmd.WriteToFile(*both, file))
	return file
}

// clusters are the flags that name the target and the hub.
func (s *stage) clusters(kubeconfig string, target *plane) []string {
	return []string{"--kubeconfig", kubeconfig, "--context", target.name, "--hub-context", s.a.name}
}

// try runs kubectl ainode against a target.
func (s *stage) try(ctx context.Context, target *plane, args ...string) (string, error) {
	return s.a.Run(ctx, "kubectl-ainode", append(args, s.clusters(s.kubeconfig, target)...)...)
}

// ainode runs kubectl ainode against a target and demands that it ends with 0.
func (s *stage) ainode(t *testing.T, target *plane, args ...string) string {
	t.Helper()
	out, err := s.try(t.Context(), target, args...)
	require.NoError(t, err)
	return out
}

// refused demands that kubectl ainode ends with 1; what it says on stderr comes back.
func (s *stage) refused(t *testing.T, target *plane, args ...string) string {
	t.Helper()
	_, err := s.try(t.Context(), target, args...)
	var failed *story.Failed
	require.ErrorAs(t, err, &failed, "kubectl ainode %s must be refused", strings.Join(args, " "))
	require.Equal(t, 1, failed.Code)
	return failed.Stderr
}

func (s *stage) bind(t *testing.T, m machine, to *plane, args ...string) {
	t.Helper()
	s.ainode(t, to, append([]string{"bind", m.node, "--to", to.name, "--timeout", patience.String()}, args...)...)
}

func (s *stage) unbind(t *testing.T, m machine, from *plane) {
	t.Helper()
	s.ainode(t, from, "unbind", m.node, "--timeout", patience.String())
}

// on runs a command on a machine and demands that it ends with 0.
func (s *stage) on(t *testing.T, m machine, args ...string) string {
	t.Helper()
	out, err := s.a.devcluster(t.Context(), "exec", append([]string{m.Name, "--"}, args...)...)
	require.NoError(t, err)
	return out
}

// join makes a machine an AI node of the pool.
func (s *stage) join(t *testing.T, m machine) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "join")
	s.ainode(t, s.a, "add", m.node, "--join-file", file)
	s.on(t, m, s.program("ainode-agent"), "join", "--file", file)
	s.startAgent(t, m)
}

func (s *stage) program(name string) string { return filepath.Join(s.a.Dir, "bin", name) }

func (s *stage) startAgent(t *testing.T, m machine) {
	t.Helper()
	args := []string{"--name", m.agent(), m.Name, "--", s.program("ainode-agent"), "run"}
	_, err := s.a.devcluster(t.Context(), "start", append(args, story.AgentOptions(m.Machine)...)...)
	require.NoError(t, err)
}

func (s *stage) killAgent(t *testing.T, m machine) {
	t.Helper()
	_, err := s.a.devcluster(context.WithoutCancel(t.Context()), "stop", "--name", m.agent(), "--signal", "KILL")
	require.NoError(t, err)
}

// agent is its agent's name for devcluster, and its log's.
func (m machine) agent() string { return "agent-of-" + m.Name }

// log is what a machine's agent has said so far.
func (s *stage) log(t *testing.T, m machine) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.a.Dir, "log", m.agent()+".log"))
	require.NoError(t, err)
	return string(raw)
}

// eventually asks until there is no error.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}

// tellWhatStands prints what one would look at by hand after a failure.
func (s *stage) tellWhatStands(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	for _, p := range []*plane{s.a, s.b} {
		for _, args := range [][]string{
			{"get", "nodes,pods,csr", "-A", "-o", "wide"}, {"get", "ainodes,clusterconfigs", "-o", "yaml"},
			{"get", "clusterroles,serviceaccounts,leases", "-A", "-l", "ainode.dev/node"},
		} {
			out, err := p.Kubectl(ctx, args...)
			t.Logf("%s: kubectl %s: %v\n%s", p.name, strings.Join(args, " "), err, out)
		}
	}
	for _, m := range []machine{s.one, s.two, s.clone} {
		if raw, err := os.ReadFile(filepath.Join(s.a.Dir, "log", m.agent()+".log")); err == nil {
			t.Logf("the log of %s ends:\n%s", m.agent(), raw[max(0, len(raw)-5000):])
		}
	}
	fmt.Fprintln(t.Output())
}
