package binding

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// handoverSeconds is the life of a handed-over token: the shortest that Kubernetes
// grants. The agent exchanges it at once.
const handoverSeconds = 600

func (w *Walk) requestToken(ctx context.Context, account string) (string, error) {
	request, err := w.Target.Core.CoreV1().ServiceAccounts(contract.SystemNamespace).CreateToken(ctx, account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(handoverSeconds))}},
		metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request a token of the target account %q: %w", account, err)
	}
	return request.Status.Token, nil
}

// handOver seals the credential to the machine's key and lays it into the hub.
func (w *Walk) handOver(ctx context.Context, p *Plan, epoch int64, token string) error {
	spec := p.config.Spec
	sealed, err := handover.Credential{
		Node: p.Node, Epoch: epoch,
		Server: spec.Server, TLSServerName: spec.TLSServerName, CertificateAuthorityData: spec.CertificateAuthorityData,
		ServiceAccount: identity.Target(p.Node, epoch), Token: token, ClientCAData: p.clientCA,
	}.Seal(p.Key)
	if err != nil {
		return err
	}
	data := map[string][]byte{handover.SealedKey: sealed, handover.EpochKey: []byte(strconv.FormatInt(epoch, 10))}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("encode the sealed credential: %w", err)
	}
	secrets, name := w.Hub.Core.CoreV1().Secrets(contract.SystemNamespace), identity.HandoverSecret(p.Node)
	_, err = secrets.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{contract.NodeNameLabel: p.Node}},
			Type:       corev1.SecretTypeOpaque, Data: data,
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("hand the credential over in Secret %q of the hub: %w", name, err)
	}
	return nil
}

// taken reports whether the agent has a credential of the record's epoch.
func taken(r *v1alpha1.AINode) bool {
	return holds(r) && r.Status.ObservedEpoch == r.Spec.BindEpoch
}

// holds reports whether the agent has a credential of the record's binding, be it one
// that is being renewed.
func holds(r *v1alpha1.AINode) bool {
	return r.Spec.ClusterConfigName != "" && r.Status.ObservedEpoch >= r.Spec.FirstEpoch() && r.Status.ObservedEpoch <= r.Spec.BindEpoch &&
		(r.Status.BindStatus == v1alpha1.Bound || r.Status.BindStatus == v1alpha1.Draining ||
			r.Status.BindStatus == v1alpha1.Binding && meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionCredentialValid) != nil)
}

// refused reports whether the target no longer accepts it: bind hands over a new one
// of the same epoch then, renew one of a new epoch.
func refused(r *v1alpha1.AINode) bool {
	return meta.IsStatusConditionFalse(r.Status.Conditions, v1alpha1.ConditionCredentialValid)
}
