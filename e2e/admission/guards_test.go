package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

const config = `{apiVersion: ainode.dev/v1alpha1, kind: ClusterConfig, metadata: {name: %s}, spec: {server: "https://10.0.0.1", certificateAuthorityData: eA==, clusterUID: u}}`

// testRecords: nothing that is bound is taken away from under those who use it.
func (c *cluster) testRecords(t *testing.T) {
	c.create(t, configs, "", config, "prod")
	bound := func(names string) error {
		return c.patch(t, configs, "", "prod", `{"status":{"boundNodes":[`+names+`]}}`, "status")
	}
	require.NoError(t, bound(`"ai-a","ai-b"`))
	binder := c.as(t, "bob", "binders")
	c.must(t, "create", "clusterrolebinding", "bob-binds", "--clusterrole=ainode-binder", "--group=binders")
	for _, who := range []*cluster{c, binder} {
		refused(t, who.delete(t, configs, "", "prod"), `config prod still has bound AI nodes: ai-a, ai-b. Unbind them first: kubectl ainode unbind ai-a ai-b`)
	}
	refused(t, c.any.Resource(configs).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}), "still has bound AI nodes")
	refused(t, c.any.Resource(configs).Delete(t.Context(), "prod", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}), "still has bound AI nodes")
	refused(t, c.patch(t, configs, "", "prod", `{"spec":{"clusterUID":"other"}}`), "a config is of one cluster")
	require.NoError(t, bound(``))
	require.NoError(t, binder.delete(t, configs, "", "prod"))

	// Somebody deletes while somebody binds: one of them is told so.
	won := map[string]int{}
	for range 25 {
		name := "race"
		c.create(t, configs, "", config, name)
		var binds, deletes error
		var both sync.WaitGroup
		both.Go(func() { binds = c.patch(t, configs, "", name, `{"status":{"boundNodes":["ai-a"]}}`, "status") })
		both.Go(func() { deletes = c.delete(t, configs, "", name) })
		both.Wait()
		require.False(t, binds == nil && deletes == nil, "the config was deleted from under a binding")
		if deletes == nil {
			won["delete"]++
			continue
		}
		require.NoError(t, binds)
		won["bind"]++
		require.NoError(t, c.patch(t, configs, "", name, `{"status":{"boundNodes":[]}}`, "status"))
		require.NoError(t, c.delete(t, configs, "", name))
	}
	t.Logf("who was first: %v", won)

	c.testAINode(t)
}

func (c *cluster) testAINode(t *testing.T) {
	refused(t, c.try(t.Context(), ainodes, "", object(t, `{apiVersion: ainode.dev/v1alpha1, kind: AINode, metadata: {name: gpu-1}}`)).err, "an AI node's name begins with ai-")
	c.create(t, ainodes, "", `{apiVersion: ainode.dev/v1alpha1, kind: AINode, metadata: {name: ai-a}, spec: {bindEpoch: 0}}`)
	spec := func(config string, epoch int) error {
		return c.patch(t, ainodes, "", "ai-a", fmt.Sprintf(`{"spec":{"clusterConfigName":%q,"bindEpoch":%d}}`, config, epoch))
	}
	status := func(is string) {
		require.NoError(t, c.patch(t, ainodes, "", "ai-a", fmt.Sprintf(`{"status":{"bindStatus":%q}}`, is), "status"))
	}
	const unbind = "Unbind it first: kubectl ainode unbind ai-a"
	require.NoError(t, spec("prod", 1))
	refused(t, c.delete(t, ainodes, "", "ai-a"), unbind)
	status("Bound")
	refused(t, spec("other", 2), "bound elsewhere only after unbinding")
	refused(t, spec("prod", 0), "bindEpoch only grows")

	// A renewal is a new epoch of the same binding, and says so; a record made before
	// there were any says it from its first on.
	renewal := func(epoch, since int) error {
		return c.patch(t, ainodes, "", "ai-a", fmt.Sprintf(`{"spec":{"bindEpoch":%d,"sinceEpoch":%d}}`, epoch, since))
	}
	const keeps = "a binding keeps the epoch that it began in"
	refused(t, spec("prod", 2), keeps)
	refused(t, renewal(2, 2), keeps)
	refused(t, renewal(2, 0), "spec.sinceEpoch")
	require.NoError(t, renewal(2, 1))
	refused(t, renewal(2, 2), keeps)
	refused(t, renewal(3, 2), keeps)
	refused(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"sinceEpoch":null}}`), keeps)
	refused(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"bindEpoch":3,"podCIDR":"10.64.3.0/24"}}`), "keeps its pods' range")
	require.NoError(t, renewal(3, 1))
	refused(t, c.delete(t, ainodes, "", "ai-a"), "is bound or still letting go (Bound)", unbind)
	refused(t, spec("", 4), "bindEpoch grows with a binding or its renewal alone")
	require.NoError(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"clusterConfigName":"","sinceEpoch":null}}`))
	status("Unbinding")
	refused(t, c.delete(t, ainodes, "", "ai-a"), "still letting go (Unbinding)")
	refused(t, spec("other", 4), "still letting go")
	require.NoError(t, c.patch(t, ainodes, "", "ai-a", `{"metadata":{"labels":{"rack":"1"}}}`))
	status("Unbound")
	refused(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"clusterConfigName":"other","bindEpoch":4,"sinceEpoch":1}}`), keeps)
	require.NoError(t, spec("other", 4))
	// A hub that was restored learns what the machine serves, and nothing else.
	serves := func(is string, epoch int) {
		require.NoError(t, c.patch(t, ainodes, "", "ai-a", fmt.Sprintf(`{"status":{"bindStatus":%q,"observedEpoch":%d}}`, is, epoch), "status"))
	}
	serves("Bound", 6)
	refused(t, spec("other", 6), keeps)
	refused(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"bindEpoch":5,"sinceEpoch":4,"address":"10.9.0.7"}}`), "keeps its address")
	require.NoError(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"bindEpoch":6,"sinceEpoch":4,"address":"10.9.0.7","podCIDR":"10.64.3.0/24"}}`))
	refused(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"address":null}}`), "keeps its address")
	refused(t, spec("", 7), "bindEpoch grows with a binding or its renewal alone")
	require.NoError(t, c.patch(t, ainodes, "", "ai-a", `{"spec":{"clusterConfigName":"","sinceEpoch":null}}`))
	refused(t, spec("other", 7), "still letting go")
	serves("Bound", 8)
	refused(t, spec("other", 9), "still letting go")
	require.NoError(t, spec("other", 8))
	serves("Unbound", 9)
	require.NoError(t, spec("", 9))
	require.NoError(t, c.delete(t, ainodes, "", "ai-a"))
}

// testIdentity: what a machine that was broken into cannot do with its identity,
// each beside what it or another may. Every refusal is our policy's own.
func (c *cluster) testIdentity(t *testing.T) {
	const policy = "ValidatingAdmissionPolicy 'ainode-node-identity'"
	const ai, worker = "ai-guard", "worker-guard"
	for _, name := range []string{ai, worker} {
		c.create(t, nodes, "", `{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {alibabacloud.com/virtual-node: "true", type: virtual-kubelet}}}`, name)
		defer func() { require.NoError(t, c.delete(t, nodes, "", name)) }()
		// Opts out, so that it keeps the token volume that lets a node ask for tokens.
		c.create(t, pods, "life", `{apiVersion: v1, kind: Pod, metadata: {name: on-%s, labels: {ainode.dev/schedule: "false"}}, spec: {nodeName: %[1]s, terminationGracePeriodSeconds: 0, containers: [{name: a, image: a}]}}`, name)
		defer func() {
			require.NoError(t, c.any.Resource(pods).Namespace("life").Delete(t.Context(), "on-"+name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
		}()
	}
	node, other := c.asNode(t, ai), c.asNode(t, worker)

	// Certificates: serving ones only.
	request := func(who *cluster, name, signer string, usage certificatesv1.KeyUsage) error {
		_, err := who.kube.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "guard"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				SignerName: signer, Request: csr(t, name), Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
			},
		}, dryRun)
		return err
	}
	refused(t, request(node, ai, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.UsageClientAuth), policy, "serving certificates only")
	refused(t, request(node, ai, certificatesv1.KubeAPIServerClientSignerName, certificatesv1.UsageClientAuth), policy)
	refused(t, request(node, ai, "example.com/any", certificatesv1.UsageClientAuth), policy)
	require.NoError(t, request(node, ai, certificatesv1.KubeletServingSignerName, certificatesv1.UsageServerAuth))
	require.NoError(t, request(other, worker, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.UsageClientAuth))

	// Tokens of its pods' service accounts: Kubernetes itself would give them.
	token := func(who *cluster, name string) error {
		pod, err := c.kube.CoreV1().Pods("life").Get(t.Context(), "on-"+name, metav1.GetOptions{})
		require.NoError(t, err)
		_, err = who.kube.CoreV1().ServiceAccounts("life").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}},
		}, metav1.CreateOptions{})
		return err
	}
	eventually(t, "an ordinary node gets its pod's token", func() error { return token(other, worker) })
	eventually(t, "the policy, and not the authorizer, refuses the AI node", func() error {
		if err := token(node, ai); err == nil || strings.Contains(err.Error(), policy) {
			return nil
		} else {
			return err
		}
	})
	refused(t, token(node, ai), policy, "an AI node gets no tokens of service accounts")

	// Its Node: reports about itself, but not what it is.
	for _, label := range contract.GuardedNodeLabels() {
		change := fmt.Sprintf(`{"metadata":{"labels":{%q:"changed"}}}`, label)
		refused(t, node.patch(t, nodes, "", ai, change), policy, "does not change the labels")
		refused(t, node.patch(t, nodes, "", ai, change, "status"), policy, "does not change the labels")
		require.NoError(t, c.patch(t, nodes, "", ai, change), "people may")
	}
	refused(t, node.patch(t, nodes, "", ai, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, contract.NodeLabel)), policy)
	refused(t, node.patch(t, nodes, "", ai, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, contract.NodeLabel), "status"), policy)
	require.NoError(t, node.patch(t, nodes, "", ai, `{"metadata":{"labels":{"example.com/rack":"r1","nvidia.com/gpu.count":"8"}}}`))
	require.NoError(t, node.patch(t, nodes, "", ai, `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "status"))
	require.NoError(t, other.patch(t, nodes, "", worker, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, contract.TypeLabel)), "an ordinary node's labels are none of ours")

	refused(t, node.patch(t, nodes, "", ai, `{"spec":{"unschedulable":true}}`), policy, "cordoned and uncordoned by people")
	require.NoError(t, c.patch(t, nodes, "", ai, `{"spec":{"unschedulable":true}}`))
	refused(t, node.patch(t, nodes, "", ai, `{"spec":{"unschedulable":null}}`), policy)
	require.NoError(t, c.patch(t, nodes, "", ai, `{"spec":{"unschedulable":null}}`))
	require.NoError(t, other.patch(t, nodes, "", worker, `{"spec":{"unschedulable":true}}`))

	// Tokens of our own accounts live a day at most, whoever asks.
	lives := func(namespace string, seconds int64) error {
		_, err := c.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default",
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
		return err
	}
	refused(t, lives(system, 86401), "ValidatingAdmissionPolicy 'ainode-token-life'", "24 hours at most")
	require.NoError(t, lives(system, 86400))
	require.NoError(t, lives("life", 86401))
}

// testTokens: who may bind one node gets the tokens that binding it takes, and none by
// which they would be another node or the webhook.
func (c *cluster) testTokens(t *testing.T) {
	const policy = "ValidatingAdmissionPolicy 'ainode-token-owner'"
	const mine, others = "ai-mine", "ai-mine-2"
	accounts := []string{
		identity.Target(mine, 3), identity.Target(others, 1), mine, others, identity.Joiner(mine), identity.Joiner(others), "ainode-odd-1", "ainode-ai-odd-x",
	}
	for _, name := range accounts {
		c.must(t, "-n", system, "create", "serviceaccount", name)
		c.must(t, "-n", system, "create", "rolebinding", "asks-"+name, "--role=ainode-binder", "--serviceaccount="+system+":"+name)
	}
	defer func() {
		for _, name := range accounts {
			c.must(t, "-n", system, "delete", "serviceaccount/"+name, "rolebinding/asks-"+name)
		}
	}()
	// ClusterRole ainode-binder of the chart value roles.binderNodes={ai-mine}.
	c.must(t, "create", "clusterrole", "be-mine", "--verb=impersonate", "--resource=users", "--resource-name="+identity.NodeUser(mine))
	c.must(t, "create", "clusterrolebinding", "be-mine", "--clusterrole=be-mine", "--user=mona", "--serviceaccount="+system+":"+identity.Target(mine, 3))
	c.must(t, "-n", system, "create", "rolebinding", "mona", "--role=ainode-binder", "--user=mona")
	defer func() {
		c.must(t, "delete", "clusterrole/be-mine", "clusterrolebinding/be-mine")
		c.must(t, "-n", system, "delete", "rolebinding/mona")
	}()

	token := func(who *cluster, account string, bound ...*authenticationv1.BoundObjectReference) error {
		request := &authenticationv1.TokenRequest{}
		for _, ref := range bound {
			request.Spec.BoundObjectRef = ref
		}
		_, err := who.kube.CoreV1().ServiceAccounts(system).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
		return err
	}
	account := func(name string) *cluster {
		return c.as(t, "system:serviceaccount:"+system+":"+name, "system:serviceaccounts", "system:serviceaccounts:"+system)
	}
	mona, bob := c.as(t, "mona"), c.as(t, "bob", "binders")
	c.must(t, "-n", system, "create", "rolebinding", "bob", "--role=ainode-binder", "--group=binders")
	c.must(t, "-n", system, "create", "rolebinding", "component", "--role=ainode-binder", "--serviceaccount=kube-system:component")
	defer func() { c.must(t, "-n", system, "delete", "rolebinding/bob", "rolebinding/component") }()
	component := c.as(t, "system:serviceaccount:kube-system:component", "system:serviceaccounts")
	eventually(t, "the rights", func() error {
		return errors.Join(token(mona, identity.Target(mine, 3)), token(bob, identity.Target(others, 1)), token(component, "default"))
	})

	for _, name := range []string{identity.Target(mine, 3), mine, identity.Joiner(mine)} {
		require.NoError(t, token(mona, name))
	}
	for _, name := range []string{identity.Target(others, 1), others, identity.Joiner(others)} {
		refused(t, token(mona, name), policy, "a token of account "+name+" is for who may act as AI node "+others, "roles.binderNodes")
		require.NoError(t, token(bob, name), "who may bind all nodes")
	}
	for _, name := range []string{"ainode-webhook", "default", "ainode-odd-1", "ainode-ai-odd-x"} {
		refused(t, token(mona, name), policy)
		require.NoError(t, token(c, name))
	}
	for _, who := range []*cluster{mona, bob} {
		refused(t, token(who, "ainode-webhook"), policy, "impersonate serviceaccounts "+system+"/ainode-webhook")
	}

	// The accounts themselves: each renews its own, an invitation becomes its node's agent.
	for _, name := range accounts {
		require.NoError(t, token(account(name), name), "its own")
		if name != identity.Joiner(others) && name != others {
			refused(t, token(account(name), others), policy)
		}
	}
	require.NoError(t, token(account(identity.Joiner(others)), others))
	refused(t, token(account(identity.Joiner(others)), identity.Target(others, 1)), policy)
	refused(t, token(account(others), identity.Target(others, 1)), policy)

	// A node gets its pods' tokens, as that of the webhook does: it runs.
	found, err := c.kube.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: webhookPods})
	require.NoError(t, err)
	require.NotEmpty(t, found.Items)
	pod := found.Items[0]
	ref := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	require.NoError(t, token(c.asNode(t, pod.Spec.NodeName), pod.Spec.ServiceAccountName, ref))
	require.NoError(t, token(component, "default"), "one of the cluster's own")
	refused(t, token(component, identity.Target(others, 1)), policy)

	// Nor by a Secret that Kubernetes fills in, made so or changed.
	secret := func(who *cluster, name, account string) error {
		return who.try(t.Context(), corev1.SchemeGroupVersion.WithResource("secrets"), system, object(t,
			`{apiVersion: v1, kind: Secret, metadata: {name: %s, annotations: {kubernetes.io/service-account.name: %q}}, type: kubernetes.io/service-account-token}`, name, account)).err
	}
	for _, name := range []string{"ainode-webhook", "default"} {
		refused(t, secret(mona, "mint", name), policy, "the right to impersonate serviceaccounts")
		require.NoError(t, secret(c, "mint", name))
	}
	for _, who := range []*cluster{c, mona} {
		refused(t, secret(who, "mint", identity.Target(mine, 3)), policy, "has no token that never ends")
	}
	secrets := corev1.SchemeGroupVersion.WithResource("secrets")
	c.create(t, secrets, system, `{apiVersion: v1, kind: Secret, metadata: {name: mint, annotations: {kubernetes.io/service-account.name: ainode-odd-1}}, type: kubernetes.io/service-account-token}`)
	defer func() { require.NoError(t, c.delete(t, secrets, system, "mint")) }()
	change := func(key, value string) error {
		return mona.patch(t, secrets, system, "mint", fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value))
	}
	refused(t, change("kubernetes.io/service-account.name", "ainode-webhook"), policy)
	require.NoError(t, change("example.com/note", "x"), "whose token it is stays")
	eventually(t, "Kubernetes fills in a Secret that may be", func() error {
		s, err := c.kube.CoreV1().Secrets(system).Get(t.Context(), "mint", metav1.GetOptions{})
		if err == nil && len(s.Data["token"]) == 0 {
			err = errors.New("no token yet")
		}
		return err
	})
	require.NoError(t, mona.try(t.Context(), secrets, system, object(t, `{apiVersion: v1, kind: Secret, metadata: {name: ordinary}}`)).err)
}

func csr(t *testing.T, node string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}, DNSNames: []string{node},
	}, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// secretPatch sets keys of a Secret; nil takes a key away.
func (c *cluster) secretPatch(t *testing.T, data map[string][]byte) {
	t.Helper()
	var fields []string
	for key, value := range data {
		text := "null"
		if value != nil {
			text = fmt.Sprintf("%q", base64.StdEncoding.EncodeToString(value))
		}
		fields = append(fields, fmt.Sprintf("%q:%s", key, text))
	}
	_, err := c.kube.CoreV1().Secrets(system).Patch(t.Context(), "ainode-webhook-certs", types.MergePatchType,
		[]byte(`{"data":{`+strings.Join(fields, ",")+`}}`), metav1.PatchOptions{})
	require.NoError(t, err)
}

func (c *cluster) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret, err := c.kube.CoreV1().Secrets(system).Get(t.Context(), "ainode-webhook-certs", metav1.GetOptions{})
	require.NoError(t, err)
	return secret
}
