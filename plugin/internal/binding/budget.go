package binding

import (
	"context"
	"errors"
	"strings"
	"sync"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
)

// budgets are the API server's last words on pods that disruption budgets hold, by the
// pod's namespace and name: "The disruption budget NAME needs …". Drain passes on the
// message of such a refusal, and leaves out its cause, where the budget is named.
type budgets struct {
	// first is called when one holds a pod; nil for nobody.
	first func()

	once sync.Once
	mu   sync.Mutex
	of   map[string]string
}

// holding is what holds a pod; empty if nothing did when it was asked last.
func (b *budgets) holding(pod string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of[pod]
}

// note keeps what an eviction was answered, and returns it with the budget named.
func (b *budgets) note(pod string, answer error) error {
	var status *apierrors.StatusError
	if answer != nil && !errors.As(answer, &status) {
		return answer // none: the time was up while it was asked for
	}
	var causes []string
	if apierrors.IsTooManyRequests(answer) && status.ErrStatus.Details != nil {
		for _, c := range status.ErrStatus.Details.Causes {
			if c.Type == policyv1.DisruptionBudgetCause {
				causes = append(causes, c.Message)
			}
		}
	}
	text := strings.Join(causes, ", ")
	b.mu.Lock()
	if b.of == nil {
		b.of = map[string]string{}
	}
	b.of[pod] = text
	b.mu.Unlock()
	if text == "" {
		return answer
	}
	if b.first != nil {
		b.once.Do(b.first)
	}
	named := &apierrors.StatusError{ErrStatus: *status.ErrStatus.DeepCopy()}
	named.ErrStatus.Message += " " + text
	return named
}

// asked is a client whose evictions b takes note of.
func (b *budgets) asked(core kubernetes.Interface) kubernetes.Interface {
	return notedCore{core, b}
}

type notedCore struct {
	kubernetes.Interface
	budgets *budgets
}

func (n notedCore) PolicyV1() policyclient.PolicyV1Interface {
	return notedPolicy{n.Interface.PolicyV1(), n.budgets}
}

type notedPolicy struct {
	policyclient.PolicyV1Interface
	budgets *budgets
}

func (n notedPolicy) Evictions(namespace string) policyclient.EvictionInterface {
	return notedEvictions{n.PolicyV1Interface.Evictions(namespace), n.budgets}
}

type notedEvictions struct {
	policyclient.EvictionInterface
	budgets *budgets
}

func (n notedEvictions) Evict(ctx context.Context, eviction *policyv1.Eviction) error {
	return n.budgets.note(eviction.Namespace+"/"+eviction.Name, n.EvictionInterface.Evict(ctx, eviction))
}
