package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi"
)

// Tokens are asked for tokens of service accounts, in the node's name.
type Tokens interface {
	Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// A token is renewed when 80% of its life are over, and after a day at the latest, as
// the kubelet does (pkg/kubelet/token).
const (
	tokenAge       = 24 * time.Hour
	tokenRetry     = time.Minute
	tokenLife      = 3600 // seconds, the API's default
	privateToOwner = fs.FileMode(0o600)
)

// token is the projection of one token: bound to the pod, so that it is void when the
// pod is gone. Where the pod has one user or a group, nobody else reads it.
func (c *collector) token(ctx context.Context, s *corev1.ServiceAccountTokenProjection, mode *int32) error {
	f := file{mode: modeOf(nil, mode), owner: onlyUser(c.pod)}
	if f.owner != nil || fsGroup(c.pod) != nil {
		f.mode = privateToOwner
	}
	if c.tokenSource == nil {
		return errors.New("this node asks for no service-account tokens")
	}
	account := c.pod.Spec.ServiceAccountName
	answer, renew, err := c.tokens.get(ctx, c.tokenSource, c.pod.Namespace, account, podToken(c.pod, s.Audience, s.ExpirationSeconds))
	c.renew = earliest(c.renew, renew)
	if err != nil {
		return fmt.Errorf("failed to fetch token of service account %q: %w", c.pod.Namespace+"/"+account, err)
	}
	f.data = []byte(answer.Status.Token)
	c.files[s.Path] = f
	return nil
}

// onlyUser is the user that every container of the pod runs as; nil if the pod does
// not say, or names several (pkg/volume/util, FsUserFrom).
func onlyUser(pod *corev1.Pod) *int64 {
	var only *int64
	differ := false
	each := func(s *corev1.SecurityContext) {
		var user *int64
		if pod.Spec.SecurityContext != nil {
			user = pod.Spec.SecurityContext.RunAsUser
		}
		if s != nil && s.RunAsUser != nil {
			user = s.RunAsUser
		}
		differ = differ || user == nil || only != nil && *only != *user
		only = user
	}
	for i := range pod.Spec.InitContainers {
		each(pod.Spec.InitContainers[i].SecurityContext)
	}
	for i := range pod.Spec.Containers {
		each(pod.Spec.Containers[i].SecurityContext)
	}
	for i := range pod.Spec.EphemeralContainers {
		each(pod.Spec.EphemeralContainers[i].SecurityContext)
	}
	if differ {
		return nil
	}
	return only
}

// tokenCache holds the tokens that pods have, in their volumes and by way of CSI drivers.
// An agent that was started again has forgotten them, and asks anew.
type tokenCache struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	known map[tokenKey]issued
}

// tokenKey is what makes a token another one (pkg/kubelet/token, keyFunc).
type tokenKey struct {
	uid                          types.UID
	namespace, account, audience string
	seconds                      int64
}

type issued struct {
	answer         *authenticationv1.TokenRequest
	renew, expires time.Time
}

// podToken asks for a token that is bound to the pod. An empty audience is the API
// server's own.
func podToken(pod *corev1.Pod, audience string, seconds *int64) *authenticationv1.TokenRequest {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	return request
}

// get returns the token that is asked for, which is bound to a pod: a new one if what is
// known grows old, and when to ask again. While no new one is to be had, the old one
// serves until it expires.
func (t *tokenCache) get(ctx context.Context, source Tokens, namespace, account string, request *authenticationv1.TokenRequest) (answer *authenticationv1.TokenRequest, renew time.Time, err error) {
	key := tokenKey{
		request.Spec.BoundObjectRef.UID, namespace, account, strings.Join(request.Spec.Audiences, " "), ptr.Deref(request.Spec.ExpirationSeconds, tokenLife),
	}
	t.mu.Lock()
	known, ok := t.known[key]
	t.mu.Unlock()
	now := t.clock.Now()
	if ok && now.Before(known.renew) {
		return known.answer, known.renew, nil
	}
	fresh, err := source.Token(ctx, namespace, account, request)
	if err != nil {
		renew = now.Add(tokenRetry)
		if ok && now.Before(known.expires) {
			return known.answer, renew, nil
		}
		return nil, renew, err
	}
	// Not by the time at which it expires: this machine's clock may be wrong.
	life := time.Duration(ptr.Deref(fresh.Spec.ExpirationSeconds, tokenLife)) * time.Second
	known = issued{answer: fresh, expires: now.Add(life), renew: now.Add(min(life*8/10, tokenAge))}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[tokenKey]issued{}
	}
	t.known[key] = known
	return known.answer, known.renew, nil
}

// forget drops the tokens of a pod that has ended.
func (t *tokenCache) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.known, func(key tokenKey, _ issued) bool { return key.uid == uid })
}

// keptTokens are what of the API a CSI driver needs, with tokens that are known: a driver
// that wants to be called each minute needs no new ones each minute.
type keptTokens struct {
	csi.Objects
	kept *tokenCache
}

// Token is a known one, or a new one.
func (k keptTokens) Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	answer, _, err := k.kept.get(ctx, k.Objects, namespace, account, request)
	return answer, err
}
