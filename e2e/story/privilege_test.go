package story

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/e2e/privilege"
)

// accounts are the API server as each account of an AI node sees it, by token.
type accounts struct {
	admin, target, node, hub, joiner kubernetes.Interface
	// act makes a client of the target account that acts as somebody else.
	act func(user string, groups ...string) kubernetes.Interface
}

// invited is a node that nobody has joined as yet: its invitation is still good.
const invited = "ai-invited"

func (s *Story) accounts(t *testing.T, epoch int64) accounts {
	t.Helper()
	admin, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	require.NoError(t, err)
	admin.QPS = -1
	client := func(c *rest.Config) kubernetes.Interface {
		k, err := kubernetes.NewForConfig(c)
		require.NoError(t, err)
		return k
	}
	a := accounts{admin: client(admin)}
	with := func(token string) *rest.Config {
		c := rest.AnonymousClientConfig(admin)
		c.BearerToken, c.QPS = token, -1
		return c
	}
	token := func(account string) string {
		answer, err := a.admin.CoreV1().ServiceAccounts(contract.SystemNamespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		require.NoError(t, err)
		return answer.Status.Token
	}
	target := token(identity.Target(Node, epoch))
	a.target, a.hub = client(with(target)), client(with(token(identity.HubAccount(Node))))
	a.act = func(user string, groups ...string) kubernetes.Interface {
		c := with(target)
		c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
		return client(c)
	}
	a.node = a.act(identity.NodeUser(Node), identity.NodesGroup)
	file := filepath.Join(t.TempDir(), "join")
	s.must(t, "ainode", "add", invited, "--join-file", file)
	t.Cleanup(func() {
		_, err := s.Kubectl(context.WithoutCancel(t.Context()), "ainode", "remove", invited)
		require.NoError(t, err)
	})
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	join, err := handover.DecodeJoin(string(raw), time.Now())
	require.NoError(t, err)
	a.joiner = client(with(join.Token))
	return a
}

// testLeastPrivilege asks, as each account, about every verb on every resource that
// the API server knows; then it tries for good what would do the most harm.
func (s *Story) testLeastPrivilege(t *testing.T) {
	a := s.accounts(t, 3)
	for _, c := range []struct {
		account privilege.Account
		client  kubernetes.Interface
		asked   privilege.Asked
	}{
		{privilege.Target(), a.target, s.askedOfTarget()},
		{privilege.Node(), a.node, s.askedOfNode(t)},
		{privilege.Hub(), a.hub, askedOfHub()},
		{privilege.Joiner(), a.joiner, askedOfJoiner()},
	} {
		t.Run(c.account.Title, func(t *testing.T) {
			allowed, err := privilege.Ask(t.Context(), c.client, c.asked)
			require.NoError(t, err)
			require.Equal(t, c.account.Rights(), allowed, "what is allowed is not what e2e/privilege lists")
		})
	}
	s.testRefusedForGood(t, a)
	t.Run("certificates that it must not get", func(t *testing.T) { s.testCertificates(t, a) })
}

var namespaces = []string{"default", "kube-system", "kube-node-lease", contract.SystemNamespace}

func object(resource, namespace, name string) privilege.Object {
	r := privilege.Resource{Name: resource}
	if base, sub, has := strings.Cut(resource, "."); has {
		// leases.coordination.k8s.io, ainodes.ainode.dev/status
		group, part, _ := strings.Cut(sub, "/")
		r = privilege.Resource{Group: group, Name: base}
		if part != "" {
			r.Name += "/" + part
		}
	}
	return privilege.Object{Resource: r, Namespace: namespace, Name: name}
}

func (s *Story) askedOfTarget() privilege.Asked {
	system := contract.SystemNamespace
	return privilege.Asked{
		Namespaces: namespaces,
		Own: []privilege.Object{
			object("serviceaccounts/token", system, identity.Target(Node, 3)), object("users", "", identity.NodeUser(Node)), object("groups", "", identity.NodesGroup),
			object("serviceaccounts", system, identity.Target(Node, 3)),
		},
		Strangers: []privilege.Object{
			object("serviceaccounts/token", system, identity.HubAccount(Node)), object("serviceaccounts/token", system, "ainode-webhook"),
			object("serviceaccounts/token", "kube-system", "default"), object("serviceaccounts", "kube-system", "default"),
			object("users", "", identity.NodeUser("node-1")), object("users", "", identity.NodeUser(invited)), object("users", "", "system:admin"),
			object("groups", "", "system:masters"), object("nodes", "", Node), object("secrets", system, identity.HandoverSecret(Node)),
			object("ainodes.ainode.dev", "", Node), object("leases.coordination.k8s.io", system, identity.HubLease(Node)),
		},
	}
}

// askedOfNode is what the pods that run there name, and the like of what those of
// another node do.
func (s *Story) askedOfNode(t *testing.T) privilege.Asked {
	asked := privilege.Asked{Namespaces: namespaces}
	add := func(list *[]privilege.Object, namespace, name string, resources ...string) {
		for _, r := range resources {
			*list = append(*list, object(r, namespace, name))
		}
	}
	mine, theirs := &asked.Own, &asked.Strangers
	nodes := []string{"nodes", "nodes/status", "nodes/proxy", "nodes/log", "csinodes.storage.k8s.io", "csinodes.storage.k8s.io/status"}
	add(mine, "", Node, nodes...)
	add(theirs, "", "node-1", nodes...)
	add(mine, "kube-node-lease", Node, "leases.coordination.k8s.io")
	add(theirs, "kube-node-lease", "node-1", "leases.coordination.k8s.io")
	add(theirs, contract.SystemNamespace, identity.HubLease(Node), "leases.coordination.k8s.io")
	for _, field := range []struct{ resource, field string }{{"pods", "spec.nodeName"}, {"nodes", "metadata.name"}} {
		own, other := object(field.resource, "", Node), object(field.resource, "", "node-1")
		own.Field, other.Field = field.field, field.field
		*mine, *theirs = append(*mine, own), append(*theirs, other)
	}
	pod := []string{"pods", "pods/status", "pods/log", "pods/exec", "pods/ephemeralcontainers", "pods/binding", "pods/resize"}
	add(mine, "default", "ray-gpu", pod...)
	other := s.pods(t, "-n", contract.SystemNamespace)[0]
	require.NotEqual(t, Node, other.Spec.NodeName)
	add(theirs, other.Namespace, other.Name, pod...)
	add(mine, "default", pullSecret, "secrets")
	add(mine, "default", "inference", "configmaps")
	add(mine, "default", "oss-test", "persistentvolumeclaims", "persistentvolumeclaims/status")
	add(mine, "", s.must(t, "get", "pvc", "oss-test", "-o", "jsonpath={.spec.volumeName}"), "persistentvolumes")
	accounts := []string{"serviceaccounts", "serviceaccounts/token"}
	add(mine, "default", "default", accounts...)
	add(theirs, contract.SystemNamespace, "ainode-webhook", accounts...)
	add(theirs, contract.SystemNamespace, identity.Target(Node, 3), accounts...)
	add(theirs, contract.SystemNamespace, "ainode-webhook-certs", "secrets")
	add(theirs, contract.SystemNamespace, identity.HandoverSecret(Node), "secrets")
	add(theirs, "kube-system", "extension-apiserver-authentication", "configmaps")
	add(theirs, "", Node, "ainodes.ainode.dev", "ainodes.ainode.dev/status")
	return asked
}

func askedOfHub() privilege.Asked {
	asked := privilege.Asked{Namespaces: namespaces}
	add := func(list *[]privilege.Object, node string) {
		system := contract.SystemNamespace
		*list = append(*list, object("ainodes.ainode.dev", "", node), object("ainodes.ainode.dev/status", "", node),
			object("secrets", system, identity.HandoverSecret(node)), object("secrets", system, identity.Joiner(node)),
			object("leases.coordination.k8s.io", system, identity.HubLease(node)), object("serviceaccounts/token", system, identity.HubAccount(node)))
	}
	add(&asked.Own, Node)
	for i := range asked.Own {
		if asked.Own[i].Name == identity.Joiner(Node) {
			asked.Own[i].Of = privilege.Invitation
		}
	}
	add(&asked.Strangers, invited)
	asked.Strangers = append(asked.Strangers, object("serviceaccounts/token", contract.SystemNamespace, identity.Target(Node, 3)),
		object("users", "", identity.NodeUser(Node)), object("nodes", "", Node), object("clusterconfigs.ainode.dev", "", Config))
	return asked
}

func askedOfJoiner() privilege.Asked {
	system := contract.SystemNamespace
	return privilege.Asked{
		Namespaces: namespaces,
		Own:        []privilege.Object{object("serviceaccounts/token", system, identity.HubAccount(invited))},
		Strangers: []privilege.Object{
			object("serviceaccounts/token", system, identity.HubAccount(Node)), object("serviceaccounts/token", system, identity.Joiner(invited)),
			object("serviceaccounts/token", system, identity.Target(Node, 3)), object("secrets", system, identity.Joiner(invited)),
			object("secrets", system, identity.HandoverSecret(invited)), object("ainodes.ainode.dev", "", invited),
		},
	}
}
