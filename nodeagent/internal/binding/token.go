package binding

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
)

// tokenLife is how long a token is asked for: the most that the target's policies
// grant one of our accounts.
const tokenLife = 24 * time.Hour

// Token is a ServiceAccount token and its life.
type Token struct {
	Value   string    `json:"token"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// renewal is when t is to be replaced: at 80 % of its life. That is never longer than
// was asked for: the clock that Expires goes by is another's.
func (t Token) renewal() time.Time {
	return t.Issued.Add(min(t.Expires.Sub(t.Issued), tokenLife) * 8 / 10)
}

// due is how long t is good for. One that comes from the future was got by a clock
// that has been set right since: how old it is, nobody knows.
func (t Token) due(now time.Time) time.Duration {
	if now.Before(t.Issued) {
		return 0
	}
	return t.renewal().Sub(now)
}

// requestToken asks for a token of account. The client must be account's own or a
// joiner's: no impersonation, which would ask in the node's name.
func requestToken(ctx context.Context, client kubernetes.Interface, account string, now time.Time) (Token, error) {
	answer, err := client.CoreV1().ServiceAccounts(contract.SystemNamespace).CreateToken(ctx, account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: ptr.To(int64(tokenLife / time.Second)),
		}}, metav1.CreateOptions{})
	if err != nil {
		return Token{}, fmt.Errorf("request a token of account %q: %w", account, err)
	}
	return Token{Value: answer.Status.Token, Issued: now, Expires: answer.Status.ExpirationTimestamp.Time}, nil
}

// Keeper signs requests with a token, keeps it fresh, and knows whether the other
// side still accepts it.
type Keeper struct {
	// Save stores a renewed token before it is used.
	Save func(Token) error
	// Renew gets the next token.
	Renew func(context.Context) (Token, error)
	// Changed is called when the other side begins or ceases to accept the token.
	Changed func()
	// Heard is called with every answer of the other side. May be nil.
	Heard func()
	Clock clock.Clock

	mu      sync.Mutex
	token   Token
	refused bool
}

// Set replaces the token.
func (k *Keeper) Set(t Token) {
	k.mu.Lock()
	k.token, k.refused = t, false
	k.mu.Unlock()
}

// Refused reports whether the last answer was 401.
func (k *Keeper) Refused() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refused
}

// Run renews the token until ctx ends. It tries again with a growing pause, for as
// long as the old token may still work and after.
func (k *Keeper) Run(ctx context.Context) {
	const shortest, longest = 5 * time.Second, 5 * time.Minute
	pause := shortest
	least := time.Duration(0)
	for {
		k.mu.Lock()
		wait := max(k.token.due(k.Clock.Now()), least)
		k.mu.Unlock()
		least = 0
		if wait <= 0 {
			next, err := k.Renew(ctx)
			if err == nil {
				err = k.Save(next)
			}
			if err == nil {
				k.Set(next)
				// A token that looks old already is our clock's fault: no storm of requests.
				pause, least = shortest, longest
				continue
			}
			klog.FromContext(ctx).Error(err, "Token not renewed, trying again", "after", pause)
			wait, pause = pause, min(2*pause, longest)
		}
		timer := k.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// Wrap is a rest.Config's WrapTransport.
func (k *Keeper) Wrap(rt http.RoundTripper) http.RoundTripper { return &signed{keeper: k, base: rt} }

type signed struct {
	keeper *Keeper
	base   http.RoundTripper
}

var _ utilnet.RoundTripperWrapper = (*signed)(nil)

func (s *signed) WrappedRoundTripper() http.RoundTripper { return s.base }

func (s *signed) RoundTrip(r *http.Request) (*http.Response, error) {
	s.keeper.mu.Lock()
	value := s.keeper.token.Value
	s.keeper.mu.Unlock()
	r = utilnet.CloneRequest(r)
	r.Header.Set("Authorization", "Bearer "+value)
	answer, err := s.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if s.keeper.Heard != nil {
		s.keeper.Heard()
	}
	s.keeper.answered(value, answer.StatusCode == http.StatusUnauthorized)
	return answer, nil
}

// answered notes what the other side thinks of the token that a request carried;
// answers to a token replaced meanwhile say nothing.
func (k *Keeper) answered(value string, refused bool) {
	k.mu.Lock()
	changed := value == k.token.Value && refused != k.refused
	if changed {
		k.refused = refused
	}
	k.mu.Unlock()
	if changed && k.Changed != nil {
		k.Changed()
	}
}
