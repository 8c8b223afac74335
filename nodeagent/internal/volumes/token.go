package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
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
	text, renew, err := c.tokens.get(ctx, c.pod, c.volumeName, s)
	c.renew = earliest(c.renew, renew)
	if err != nil {
		return err
	}
	f.data = []byte(text)
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

// tokenCache holds the tokens that pods have. An agent that was started again has
// forgotten them, and asks anew.
type tokenCache struct {
	source Tokens
	clock  clock.PassiveClock

	mu    sync.Mutex
	known map[tokenKey]issued
}

type tokenKey struct {
	uid          types.UID
	volume, path string
}

type issued struct {
	token          string
	renew, expires time.Time
}

// get returns the token for one file of a volume, a new one if what is known grows
// old, and when to ask again. While no new one is to be had, the old one serves until
// it expires.
func (t *tokenCache) get(ctx context.Context, pod *corev1.Pod, volume string, s *corev1.ServiceAccountTokenProjection) (token string, renew time.Time, err error) {
	key := tokenKey{pod.UID, volume, s.Path}
	t.mu.Lock()
	known, ok := t.known[key]
	t.mu.Unlock()
	now := t.clock.Now()
	if ok && now.Before(known.renew) {
		return known.token, known.renew, nil
	}
	fresh, err := t.ask(ctx, pod, s)
	if err != nil {
		renew = now.Add(tokenRetry)
		if ok && now.Before(known.expires) {
			return known.token, renew, nil
		}
		return "", renew, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[tokenKey]issued{}
	}
	t.known[key] = fresh
	return fresh.token, fresh.renew, nil
}

func (t *tokenCache) ask(ctx context.Context, pod *corev1.Pod, s *corev1.ServiceAccountTokenProjection) (issued, error) {
	if t.source == nil {
		return issued{}, errors.New("this node asks for no service-account tokens")
	}
	account := pod.Spec.ServiceAccountName
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if s.Audience != "" {
		request.Spec.Audiences = []string{s.Audience}
	}
	now := t.clock.Now()
	answer, err := t.source.Token(ctx, pod.Namespace, account, request)
	if err != nil {
		return issued{}, fmt.Errorf("failed to fetch token of service account %q: %w", pod.Namespace+"/"+account, err)
	}
	// Not by the time at which it expires: this machine's clock may be wrong.
	life := time.Duration(ptr.Deref(answer.Spec.ExpirationSeconds, tokenLife)) * time.Second
	return issued{token: answer.Status.Token, expires: now.Add(life), renew: now.Add(min(life*8/10, tokenAge))}, nil
}

// forget drops the tokens of a pod that has ended.
func (t *tokenCache) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.known, func(key tokenKey, _ issued) bool { return key.uid == uid })
}
