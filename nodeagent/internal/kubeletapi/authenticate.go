package kubeletapi

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

// How long answers of the target are remembered, as the kubelet does by default;
// a refused token is asked about again sooner.
const (
	tokenAccepted = 2 * time.Minute
	tokenRefused  = 10 * time.Second
	cacheSize     = 1024
)

// errUnauthenticated is the answer to everybody without a valid certificate or
// token: anonymous is off.
var errUnauthenticated = errors.New("unauthenticated")

// authenticator finds out who asks: by client certificate of the CA that bind
// handed over, or by a bearer token that the target vouches for.
type authenticator struct {
	roots  *x509.CertPool
	client kubernetes.Interface
	tokens *cache.LRUExpireCache
	now    func() time.Time
}

func newAuthenticator(clientCA []byte, client kubernetes.Interface, now func() time.Time) (*authenticator, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(clientCA) {
		return nil, errors.New("read the CA of the API server's client certificates: no certificate in it")
	}
	return &authenticator{roots: roots, client: client, tokens: cache.NewLRUExpireCache(cacheSize), now: now}, nil
}

// user returns who asks, errUnauthenticated, or the error of asking the target.
func (a *authenticator) user(r *http.Request) (*authenticationv1.UserInfo, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return a.certificate(r.TLS.PeerCertificates)
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token != "" {
		return a.token(r.Context(), strings.TrimSpace(token))
	}
	return nil, errUnauthenticated
}

func (a *authenticator) certificate(chain []*x509.Certificate) (*authenticationv1.UserInfo, error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || chain[0].Subject.CommonName == "" {
		return nil, errUnauthenticated
	}
	return authenticated(authenticationv1.UserInfo{
		Username: chain[0].Subject.CommonName, Groups: chain[0].Subject.Organization,
	}), nil
}

func (a *authenticator) token(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	key := sha256.Sum256([]byte(token))
	if known, ok := a.tokens.Get(key); ok {
		if user := known.(*authenticationv1.UserInfo); user != nil { // nothing else is put in
			return user, nil
		}
		return nil, errUnauthenticated
	}
	review, err := a.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("review a token: %w", err)
	}
	if !review.Status.Authenticated {
		a.tokens.Add(key, (*authenticationv1.UserInfo)(nil), tokenRefused)
		return nil, errUnauthenticated
	}
	user := authenticated(review.Status.User)
	a.tokens.Add(key, user, tokenAccepted)
	return user, nil
}

func authenticated(u authenticationv1.UserInfo) *authenticationv1.UserInfo {
	const group = "system:authenticated"
	for _, g := range u.Groups {
		if g == group {
			return &u
		}
	}
	u.Groups = append(u.Groups[:len(u.Groups):len(u.Groups)], group)
	return &u
}
