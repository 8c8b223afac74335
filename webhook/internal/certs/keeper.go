package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionac "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// fieldManager owns the caBundles and nothing else in our webhook configurations.
const fieldManager = "ainode-webhook-certs"

// again is how often the certificates are looked at without an event.
const again = time.Hour

// Keeper keeps one replica's certificate current. Every replica runs one: they
// agree through the Secret, which is only ever replaced as it was read.
type Keeper struct {
	client    kubernetes.Interface
	clock     clock.PassiveClock
	namespace string
	secret    string
	names     []string
	mutating  string
	validates string

	serving atomic.Pointer[tls.Certificate]
	trusted atomic.Bool
}

// Options of a Keeper, all required.
type Options struct {
	Client    kubernetes.Interface
	Clock     clock.PassiveClock
	Namespace string
	// Secret is the name of the authority's Secret.
	Secret string
	// Names are the DNS names that the API server calls.
	Names []string
	// MutatingConfig and ValidatingConfig are the names of our configurations.
	MutatingConfig   string
	ValidatingConfig string
}

// New makes a Keeper.
func New(o Options) (*Keeper, error) {
	if o.Client == nil || o.Clock == nil || o.Namespace == "" || o.Secret == "" || len(o.Names) == 0 || o.MutatingConfig == "" || o.ValidatingConfig == "" {
		return nil, errors.New("make the certificates' keeper: all options are required")
	}
	return &Keeper{
		client: o.Client, clock: o.Clock, namespace: o.Namespace, secret: o.Secret, names: o.Names,
		mutating: o.MutatingConfig, validates: o.ValidatingConfig,
	}, nil
}

// GetCertificate is for tls.Config.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert := k.serving.Load()
	if cert == nil {
		return nil, errors.New("no serving certificate yet")
	}
	return cert, nil
}

// Ready is a readiness check: a certificate is loaded and the API server trusts it.
func (k *Keeper) Ready(*http.Request) error {
	if k.serving.Load() == nil {
		return errors.New("no serving certificate yet")
	}
	if !k.trusted.Load() {
		return errors.New("the webhook configurations do not hold our CA yet")
	}
	return nil
}

// Register runs the keeper with the manager, on every replica. The manager's
// cache must be narrowed to the three objects: its account may read no others.
func (k *Keeper) Register(mgr ctrl.Manager) error {
	every := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	start := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(reconcile.Request{})
		return nil
	})
	return ctrl.NewControllerManagedBy(mgr).Named("certificates").
		WatchesRawSource(start).
		Watches(&corev1.Secret{}, every).
		Watches(&admissionregistrationv1.MutatingWebhookConfiguration{}, every).
		Watches(&admissionregistrationv1.ValidatingWebhookConfiguration{}, every).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(k)
}

// Reconcile makes the Secret, the certificate in memory and the configurations
// agree.
func (k *Keeper) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	data, err := k.authority(ctx)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil // another replica was first: take its work
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	pair, err := tls.X509KeyPair(data[keyCert], data[keyKey])
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("load the serving certificate: %w", err)
	}
	if before := k.serving.Swap(&pair); before == nil || !before.Leaf.Equal(pair.Leaf) {
		log.FromContext(ctx).Info("Serving certificate loaded", "serial", pair.Leaf.SerialNumber.String(), "notAfter", pair.Leaf.NotAfter)
	}
	mutating, err := k.trustInMutating(ctx, data[keyCACert])
	if err != nil {
		return reconcile.Result{}, err
	}
	validating, err := k.trustInValidating(ctx, data[keyCACert])
	if err != nil {
		return reconcile.Result{}, err
	}
	k.trusted.Store(mutating && validating)
	return reconcile.Result{RequeueAfter: again}, nil
}

// authority reads the Secret and renews it where that is due.
func (k *Keeper) authority(ctx context.Context) (map[string][]byte, error) {
	secrets := k.client.CoreV1().Secrets(k.namespace)
	secret, err := secrets.Get(ctx, k.secret, metav1.GetOptions{})
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return nil, fmt.Errorf("read secret %q: %w", k.secret, err)
	}
	if absent {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: k.secret, Namespace: k.namespace}}
	}
	data, changed, err := Renew(secret.Data, k.names, k.clock.Now())
	if err != nil || !changed {
		return data, err
	}
	secret.Data = data
	if absent {
		_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
	} else {
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("write secret %q: %w", k.secret, err)
	}
	return data, nil
}

// trustInMutating puts the CAs into our MutatingWebhookConfiguration; false where
// there is none yet.
func (k *Keeper) trustInMutating(ctx context.Context, cas []byte) (bool, error) {
	configs := k.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	config, err := configs.Get(ctx, k.mutating, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read webhook configuration %q: %w", k.mutating, err)
	}
	apply, changed := admissionac.MutatingWebhookConfiguration(k.mutating), false
	for _, w := range config.Webhooks {
		changed = changed || !bytes.Equal(w.ClientConfig.CABundle, cas)
		apply.WithWebhooks(admissionac.MutatingWebhook().WithName(w.Name).
			WithClientConfig(admissionac.WebhookClientConfig().WithCABundle(cas...)))
	}
	if !changed {
		return true, nil
	}
	if _, err := configs.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return false, fmt.Errorf("put the CA into webhook configuration %q: %w", k.mutating, err)
	}
	return true, nil
}

// trustInValidating does the same for our ValidatingWebhookConfiguration.
func (k *Keeper) trustInValidating(ctx context.Context, cas []byte) (bool, error) {
	configs := k.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	config, err := configs.Get(ctx, k.validates, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read webhook configuration %q: %w", k.validates, err)
	}
	apply, changed := admissionac.ValidatingWebhookConfiguration(k.validates), false
	for _, w := range config.Webhooks {
		changed = changed || !bytes.Equal(w.ClientConfig.CABundle, cas)
		apply.WithWebhooks(admissionac.ValidatingWebhook().WithName(w.Name).
			WithClientConfig(admissionac.WebhookClientConfig().WithCABundle(cas...)))
	}
	if !changed {
		return true, nil
	}
	if _, err := configs.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return false, fmt.Errorf("put the CA into webhook configuration %q: %w", k.validates, err)
	}
	return true, nil
}
