package story

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// attempt is one thing that an account really tries to do. What it would write is a
// server's dry run where there is one.
type attempt struct {
	what string
	by   kubernetes.Interface
	do   func(context.Context, kubernetes.Interface) error
}

// testRefusedForGood tries what would do the most harm, where an authorizer says yes
// and another has to say no as well. Each answer must be 403.
func (s *Story) testRefusedForGood(t *testing.T, a accounts) {
	system, dry := contract.SystemNamespace, []string{metav1.DryRunAll}
	other := s.pods(t, "-n", system)[0]
	asOther, asAdmin, asNobody := a.act(identity.NodeUser("node-1"), identity.NodesGroup), a.act(identity.NodeUser(Node), "system:masters"), a.act(identity.NodeUser(Node))
	for _, try := range []attempt{
		{"the account reads pods as itself", a.target, listPods},
		{"the account acts as another node", asOther, listPods},
		{"the account acts as an administrator", asAdmin, listPods},
		{"the account acts as the node, outside the group", asNobody, getNode(Node)},
		{"a longer token", a.target, token(system, identity.Target(Node, 3), 86401, nil)},
		{"another's token", a.target, token(system, "ainode-webhook", 600, nil)},

		{"all pods", a.node, listPods},
		{"all Secrets", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
			return err
		}},
		{"another's Secret", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(system).Get(ctx, "ainode-webhook-certs", metav1.GetOptions{})
			return err
		}},
		{"another node", a.node, getNode("node-1")},
		{"another node's status", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().Patch(ctx, "node-1", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{DryRun: dry}, "status")
			return err
		}},
		{"another node's pod deleted", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Pods(other.Namespace).Delete(ctx, other.Name, metav1.DeleteOptions{DryRun: dry})
		}},
		{"another node's pod's status", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods(other.Namespace).Patch(ctx, other.Name, types.MergePatchType, []byte(`{"status":{"podIP":"10.0.0.99"}}`), metav1.PatchOptions{DryRun: dry}, "status")
			return err
		}},
		{"its own pod changed", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods("default").Patch(ctx, "ray-gpu", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"other"}}}`), metav1.PatchOptions{DryRun: dry})
			return err
		}},
		{"a mirror pod, an endpoint of anybody's Service", a.node, createMirrorPod},
		{"another node's pod evicted", a.node, evict(other.Namespace, other.Name, dry)},
		{"its own taints", a.node, patchNode(`{"spec":{"taints":[]}}`, dry)},
		{"its own cordon", a.node, patchNode(`{"spec":{"unschedulable":true}}`, dry)},
		{"its own label", a.node, patchNode(`{"metadata":{"labels":{"`+contract.NodeLabel+`":null}}}`, dry)},
		{"its own deletion", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Nodes().Delete(ctx, Node, metav1.DeleteOptions{DryRun: dry})
		}},
		{"a token of its pod's account", a.node, token("default", "default", 600, s.boundTo(t, "ray-gpu"))},
		{"a token of its own account", a.node, token(system, identity.Target(Node, 3), 600, nil)},
		{"a client certificate", a.node, createRequest(certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.UsageClientAuth, dry)},
		{"another's CSINode", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "ai-other"}}, metav1.CreateOptions{DryRun: dry})
			return err
		}},
		{"a Lease of the hub", a.node, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoordinationV1().Leases(system).Patch(ctx, identity.HubLease(Node), types.MergePatchType, []byte(`{"spec":{"holderIdentity":"thief"}}`), metav1.PatchOptions{DryRun: dry})
			return err
		}},
		{"cluster-admin", a.node, bindAdmin(dry)},

		{"another's handover", a.hub, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(system).Get(ctx, identity.HandoverSecret(invited), metav1.GetOptions{})
			return err
		}},
		{"a longer token of the hub's account", a.hub, token(system, identity.HubAccount(Node), 86401, nil)},
		{"its own wish", a.hub, func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath("/apis/ainode.dev/v1alpha1/ainodes/"+Node).
				Param("dryRun", metav1.DryRunAll).Body([]byte(`{"spec":{"draining":true}}`)).Do(ctx).Error()
		}},
		{"the node, with the hub's account", a.hub, getNode(Node)},

		{"a longer token by an invitation", a.joiner, token(system, identity.HubAccount(invited), 86401, nil)},
		{"another's token by an invitation", a.joiner, token(system, identity.HubAccount(Node), 600, nil)},
		{"cluster-admin by an invitation", a.joiner, bindAdmin(dry)},
	} {
		err := try.do(t.Context(), try.by)
		require.True(t, apierrors.IsForbidden(err), "%s: want 403, have: %v", try.what, err)
	}
	// And what each is for, so that a cluster where all is refused does not pass.
	for _, try := range []attempt{
		{"the node reads itself", a.node, getNode(Node)},
		{"the node sends its own pod away", a.node, evict("default", "ray-gpu", dry)},
		{"the account renews its token", a.target, token(system, identity.Target(Node, 3), 86400, nil)},
		{"the hub's account renews its token", a.hub, token(system, identity.HubAccount(Node), 86400, nil)},
		{"an invitation is taken", a.joiner, token(system, identity.HubAccount(invited), 600, nil)},
	} {
		require.NoError(t, try.do(t.Context(), try.by), try.what)
	}
}

func listPods(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
	return err
}

func getNode(name string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		return err
	}
}

func patchNode(change string, dry []string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Nodes().Patch(ctx, Node, types.MergePatchType, []byte(change), metav1.PatchOptions{DryRun: dry})
		return err
	}
}

func evict(namespace, pod string, dry []string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: namespace}, DeleteOptions: &metav1.DeleteOptions{DryRun: dry},
		})
	}
}

func token(namespace, account string, seconds int64, bound *authenticationv1.BoundObjectReference) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(seconds), BoundObjectRef: bound},
		}, metav1.CreateOptions{})
		return err
	}
}

// boundTo is what a kubelet binds a pod's token to.
func (s *Story) boundTo(t *testing.T, pod string) *authenticationv1.BoundObjectReference {
	t.Helper()
	uid := types.UID(s.must(t, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"))
	return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: uid}
}

func createMirrorPod(ctx context.Context, c kubernetes.Interface) error {
	node, err := c.CoreV1().Nodes().Get(ctx, Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "mirror-" + Node, Labels: map[string]string{"app": "inference"}, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: Node, AutomountServiceAccountToken: ptr.To(false), Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{Name: "c", Image: "x"}},
		},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

func createRequest(signer string, usage certificatesv1.KeyUsage, dry []string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: identity.NodeUser(Node), Organization: []string{identity.NodesGroup}},
		}, key)
		if err != nil {
			return err
		}
		_, err = c.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				SignerName: signer, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			},
		}, metav1.CreateOptions{DryRun: dry})
		return err
	}
}

func bindAdmin(dry []string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "admin-"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: identity.NodeUser(Node)}},
		}, metav1.CreateOptions{DryRun: dry})
		return err
	}
}
