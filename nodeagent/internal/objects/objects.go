// Package objects reads the ConfigMaps, Secrets, claims and volumes that pods mention,
// one by one, and the tokens of their service accounts: a node may read those of its own
// pods, and list none (Node authorizer). Services, which all pods are told of, it may list.
package objects

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Reader reads from the target. Its errors are the API's, so that callers can tell
// what is not there from what can't be read.
type Reader struct{ Client kubernetes.Interface }

// ConfigMap reads one ConfigMap.
func (r Reader) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return r.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Secret reads one Secret.
func (r Reader) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return r.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Claim reads one PersistentVolumeClaim.
func (r Reader) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return r.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
}

// PersistentVolume reads one that a claim is bound to.
func (r Reader) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return r.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
}

// Token asks for a token of a service account.
func (r Reader) Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return r.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
}

// CSIDriver reads what a CSI driver says of itself.
func (r Reader) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	return r.Client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
}

// VolumeAttachment reads one of this node.
func (r Reader) VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return r.Client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{})
}
