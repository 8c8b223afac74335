package binding

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/listwatch"
)

// watchHub watches the record and what is handed over.
func (b *Binder) watchHub(ctx context.Context, secrets kubernetes.Interface) {
	node := b.o.Joined.Node
	record := informer(listwatch.Of(b.records, named(node), b.records), &v1alpha1.AINode{}, b.sawRecord)
	handedOver := informer(listwatch.Of(secrets.CoreV1().Secrets(contract.SystemNamespace), named(identity.HandoverSecret(node)), secrets),
		&corev1.Secret{}, func(any) { b.poke() })
	var wg sync.WaitGroup
	wg.Go(func() { record.RunWithContext(ctx) })
	wg.Go(func() { handedOver.RunWithContext(ctx) })
	wg.Wait()
}

func named(name string) fields.Selector {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, name)
}

// informer calls seen with the one object that source is of whenever that may have
// changed, and with nil when it is gone.
func informer(source cache.ListerWatcher, object runtime.Object, seen func(any)) cache.Controller {
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    object,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { seen(o) },
			UpdateFunc: func(_, o any) { seen(o) },
			DeleteFunc: func(any) { seen(nil) },
		},
	})
	return informer
}
