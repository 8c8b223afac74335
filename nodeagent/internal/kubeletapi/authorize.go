package kubeletapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

// The kubelet's own cache times for the answers of SubjectAccessReview.
const (
	accessAllowed = 5 * time.Minute
	accessDenied  = 30 * time.Second
)

// authorizer asks the target whether a user may do this to the node.
type authorizer struct {
	node    string
	client  kubernetes.Interface
	answers *cache.LRUExpireCache
}

func newAuthorizer(node string, client kubernetes.Interface) *authorizer {
	return &authorizer{node: node, client: client, answers: cache.NewLRUExpireCache(cacheSize)}
}

// allowed reports whether the user may; one of the subresources is enough.
func (a *authorizer) allowed(ctx context.Context, user *authenticationv1.UserInfo, method, path string) (bool, error) {
	for _, sub := range subresources(path) {
		ok, err := a.ask(ctx, user, verb(method, path), sub)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (a *authorizer) ask(ctx context.Context, user *authenticationv1.UserInfo, verb, subresource string) (bool, error) {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: a.node,
		},
	}
	for k, v := range user.Extra {
		if spec.Extra == nil {
			spec.Extra = map[string]authorizationv1.ExtraValue{}
		}
		spec.Extra[k] = authorizationv1.ExtraValue(v)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return false, fmt.Errorf("encode access review: %w", err)
	}
	key := string(raw)
	if known, ok := a.answers.Get(key); ok {
		return known.(bool), nil // nothing else is put in
	}
	review, err := a.client.AuthorizationV1().SubjectAccessReviews().Create(ctx,
		&authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review access to nodes/%s: %w", subresource, err)
	}
	ok := review.Status.Allowed && !review.Status.Denied
	if ok {
		a.answers.Add(key, true, accessAllowed)
	} else {
		a.answers.Add(key, false, accessDenied)
	}
	return ok, nil
}

// verb is the API verb of a request; an unknown method has none, which nobody is
// granted. To go into a container is more than to read, though WebSockets begin with
// a GET: rights to watch nodes (get nodes/proxy) do not open it, as they do on a
// kubelet.
func verb(method, path string) string {
	for _, into := range []string{"/exec/", "/attach/", "/portForward/"} {
		if strings.HasPrefix(path, into) && method == http.MethodGet {
			return "create"
		}
	}
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodGet:
		return "get"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return ""
}

// subresources are those of nodes that a path belongs to, any of which suffices:
// the kubelet's mapping (pkg/kubelet/server/auth.go).
func subresources(path string) []string {
	below := func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") }
	switch {
	case below("/pods"), below("/runningpods"):
		return []string{"pods", "proxy"}
	case below("/healthz"):
		return []string{"healthz", "proxy"}
	case below("/configz"):
		return []string{"configz", "proxy"}
	case below("/stats"):
		return []string{"stats"}
	case below("/metrics"):
		return []string{"metrics"}
	case below("/logs"):
		return []string{"log"}
	case below("/checkpoint"):
		return []string{"checkpoint"}
	default:
		return []string{"proxy"}
	}
}
