package admission

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/identity"
)

var (
	clusterRoles    = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	clusterBindings = clusterRoles.GroupVersion().WithResource("clusterrolebindings")
	roles           = clusterRoles.GroupVersion().WithResource("roles")
	roleBindings    = clusterRoles.GroupVersion().WithResource("rolebindings")
	accounts        = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	leases          = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	requests        = certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests")
)

// thing is one object of a target.
type thing struct {
	at              schema.GroupVersionResource
	namespace, name string
}

// bound makes what stands of a bound node, and nothing that runs.
func (c *cluster) bound(t *testing.T, node string) []thing {
	t.Helper()
	name := identity.Target(node, 1)
	meta := fmt.Sprintf(`metadata: {name: %s, labels: {ainode.dev/node: %s}, annotations: {ainode.dev/bind-epoch: "1"}}`, name, node)
	const ref = `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}, subjects: []`
	c.create(t, clusterRoles, "", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, %s, rules: []}`, meta)
	c.create(t, clusterBindings, "", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, %s, `+ref+`}`, meta, "ClusterRole", name)
	c.create(t, roles, system, `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, %s, rules: []}`, meta)
	c.create(t, roleBindings, system, `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, %s, `+ref+`}`, meta, "Role", name)
	c.create(t, accounts, system, `{apiVersion: v1, kind: ServiceAccount, %s}`, meta)
	c.create(t, nodes, "", `{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {alibabacloud.com/virtual-node: "true"}, annotations: {ainode.dev/bind-epoch: "1"}}}`, node)
	c.create(t, pods, "life", `{apiVersion: v1, kind: Pod, metadata: {name: on-%s, labels: {ainode.dev/schedule: "false"}}, spec: {nodeName: %[1]s, containers: [{name: a, image: a}]}}`, node)
	c.create(t, leases, corev1.NamespaceNodeLease, `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: %s}}`, node)
	_, err := c.asNode(t, node).kube.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "of-" + node},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeletServingSignerName, Request: csr(t, node), Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return []thing{
		{accounts, system, name}, {clusterBindings, "", name}, {roleBindings, system, name}, {roles, system, name}, {clusterRoles, "", name},
		{requests, "", "of-" + node}, {nodes, "", node}, {leases, corev1.NamespaceNodeLease, node}, {pods, "life", "on-" + node},
	}
}

// testHousekeeper: what a plugin that died left behind is cleared up on the node's own
// word, and the webhook's account can delete nothing that a binding has not made.
func (c *cluster) testHousekeeper(t *testing.T) {
	left, bound := c.bound(t, "ai-left"), c.bound(t, "ai-bound")
	for _, node := range []string{"ai-left", "ai-bound"} {
		mark := `{"metadata":{"annotations":{"ainode.dev/released-epoch":%q}}}`
		refused(t, c.asNode(t, "ai-other").patch(t, nodes, "", node, fmt.Sprintf(mark, "1")), "is not allowed to modify node")
	}
	require.NoError(t, c.asNode(t, "ai-left").patch(t, nodes, "", "ai-left", `{"metadata":{"annotations":{"ainode.dev/released-epoch":"1"}}}`))
	for _, gone := range left {
		eventually(t, gone.at.Resource+" "+gone.name+" is cleared up", func() error {
			_, err := c.any.Resource(gone.at).Namespace(gone.namespace).Get(t.Context(), gone.name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there: %w", err)
		})
	}

	const policy = "ValidatingAdmissionPolicy 'ainode-housekeeper'"
	webhook := c.as(t, "system:serviceaccount:"+system+":ainode-webhook", "system:serviceaccounts")
	dry := func(what thing) error {
		return webhook.any.Resource(what.at).Namespace(what.namespace).Delete(t.Context(), what.name,
			metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}, GracePeriodSeconds: ptr.To[int64](0)})
	}
	for _, what := range bound {
		require.NoError(t, dry(what), "%s %s is a binding's", what.at.Resource, what.name)
	}
	c.create(t, pods, "life", `{apiVersion: v1, kind: Pod, metadata: {name: on-worker}, spec: {nodeName: worker-housekeeper, containers: [{name: a, image: a}]}}`)
	c.create(t, nodes, "", `{apiVersion: v1, kind: Node, metadata: {name: ai-foreign}}`)
	c.create(t, leases, corev1.NamespaceNodeLease, `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: worker-housekeeper}}`)
	c.create(t, requests, "", `{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: a-persons}, spec: {signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], request: %s}}`, base64.StdEncoding.EncodeToString(csr(t, "bob")))
	for _, what := range []thing{
		{nodes, "", "node-1"}, {nodes, "", "ai-foreign"}, {pods, "life", "on-worker"}, {leases, corev1.NamespaceNodeLease, "worker-housekeeper"},
		{requests, "", "a-persons"}, {clusterRoles, "", "cluster-admin"}, {clusterRoles, "", "ainode-binder"}, {clusterBindings, "", "ainode-webhook"},
		{accounts, system, "ainode-webhook"}, {roles, system, "ainode-webhook"}, {roleBindings, system, "ainode-webhook"},
	} {
		refused(t, dry(what), policy)
	}
	for _, what := range []thing{{accounts, "life", "default"}, {leases, system, "ainode-webhook"}} {
		require.True(t, apierrors.IsForbidden(dry(what)), "RBAC ends at the namespace: %v", what)
	}
	for _, what := range append(bound, thing{pods, "life", "on-worker"}, thing{nodes, "", "ai-foreign"}, thing{leases, corev1.NamespaceNodeLease, "worker-housekeeper"}, thing{requests, "", "a-persons"}) {
		require.NoError(t, c.any.Resource(what.at).Namespace(what.namespace).Delete(t.Context(), what.name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	}
}
