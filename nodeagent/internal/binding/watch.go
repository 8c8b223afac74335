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
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// watchHub watches the record and what is handed over, and begins anew when the hub's
// store was restored: a watch that goes on where it stood tells nothing until the hub
// has come to that version again.
func (b *Binder) watchHub(ctx context.Context, secrets kubernetes.Interface) {
	node := b.o.Joined.Node
	for ctx.Err() == nil {
		record := watchOne(b.records, "ainodes", "", node, &v1alpha1.AINode{}, b.sawRecord)
		handedOver := watchOne(secrets.CoreV1().RESTClient(), "secrets", contract.SystemNamespace, identity.HandoverSecret(node),
			&corev1.Secret{}, func(any) { b.poke() })
		watching, anew := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { record.RunWithContext(watching) })
		wg.Go(func() { handedOver.RunWithContext(watching) })
		select {
		case <-ctx.Done():
		case <-b.restored:
			klog.FromContext(ctx).Info("The hub's store was restored from a backup, its record is read anew", "node", node)
		}
		anew()
		wg.Wait()
	}
}

// watchOne is an informer of the one object called name; seen is called with it
// whenever it may have changed, and with nil when it is gone.
func watchOne(client cache.Getter, resource, namespace, name string, object runtime.Object, seen func(any)) cache.Controller {
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, resource, namespace,
			fields.OneTermEqualSelector(metav1.ObjectNameField, name)),
		ObjectType: object,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { seen(o) },
			UpdateFunc: func(_, o any) { seen(o) },
			DeleteFunc: func(any) { seen(nil) },
		},
	})
	return informer
}
