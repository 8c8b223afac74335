package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// merged is a copy of both, nil if neither holds anything.
func merged(a, b map[string]string) map[string]string {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	all := make(map[string]string, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// secret is what the named Secret holds.
func (mt *mounting) secret(ctx context.Context, field string, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	secret, err := mt.Objects.Secret(ctx, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%s: secret %q not found in namespace %q", field, ref.Name, ref.Namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read secret %q: %w", field, ref.Namespace+"/"+ref.Name, err)
	}
	values := make(map[string]string, len(secret.Data))
	for name, value := range secret.Data {
		values[name] = string(value)
	}
	return values, nil
}

// tokens are those of the pod's service account that the driver wants, as one attribute
// that holds them by audience (CSIDriver.spec.tokenRequests). bare are the same one by
// one: a driver may repeat a single one.
func (mt *mounting) tokens(ctx context.Context) (attribute, bare map[string]string, err error) {
	if mt.object == nil || len(mt.object.Spec.TokenRequests) == 0 {
		return nil, nil, nil
	}
	bare = map[string]string{}
	pod, issued := mt.Pod, map[string]authenticationv1.TokenRequestStatus{}
	for _, want := range mt.object.Spec.TokenRequests {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: want.ExpirationSeconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		if want.Audience != "" {
			request.Spec.Audiences = []string{want.Audience}
		}
		answer, err := mt.Objects.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, request)
		if err != nil {
			return nil, nil, fmt.Errorf("CSI driver %s wants a token of the pod's service account %q (CSIDriver.spec.tokenRequests): %w",
				mt.object.Name, pod.Namespace+"/"+pod.Spec.ServiceAccountName, err)
		}
		issued[want.Audience] = answer.Status
		bare["token/"+want.Audience] = answer.Status.Token
	}
	text, err := json.Marshal(issued)
	if err != nil {
		return nil, nil, fmt.Errorf("hand tokens to CSI driver %s: %w", mt.object.Name, err)
	}
	return map[string]string{accountTokens: string(text)}, bare, nil
}
