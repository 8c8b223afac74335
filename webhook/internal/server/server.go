// Package server is the wiring room of ainode-webhook: it reads the flags, makes
// the parts and runs them until told to stop.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/webhook/internal/admission"
	"github.com/ainode/ainode/webhook/internal/approver"
	"github.com/ainode/ainode/webhook/internal/certs"
	"github.com/ainode/ainode/webhook/internal/housekeeper"
)

const (
	leaseName = "ainode-webhook"
	// drain is how long requests in flight may take after a stop; the API server
	// waits for three seconds at most.
	drain = 5 * time.Second
)

// Run runs the program until ctx ends.
func Run(ctx context.Context, args []string, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctrl.SetLogger(klog.NewKlogr())
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	mgr, err := ctrl.NewManager(config, managerOptions(o))
	if err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make the API client: %w", err)
	}
	keeper, err := certs.New(certs.Options{
		Client: clients, Clock: clock.RealClock{}, Namespace: o.namespace, Secret: o.secret,
		Names:          []string{o.service + "." + o.namespace + ".svc"},
		MutatingConfig: o.mutatingConfig, ValidatingConfig: o.validatingConfig,
	})
	if err != nil {
		return err
	}
	approve, err := approver.New(approver.Options{
		Reader: mgr.GetClient(), Client: clients, Recorder: mgr.GetEventRecorder(leaseName), Clock: clock.RealClock{},
	})
	if err != nil {
		return err
	}
	observer, err := admission.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	handler, err := admission.New(admission.Options{
		Policy: o.policy, Observer: observer, Clock: clock.RealClock{}, AssumeRestricted: o.assumeRestricted,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	handler.Register(mux)
	if o.housekeeper {
		housekeeper, err := housekeeper.New(housekeeper.Options{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Hub: o.hub})
		if err != nil {
			return err
		}
		if err := housekeeper.Register(mgr); err != nil {
			return fmt.Errorf("wire the housekeeper: %w", err)
		}
	}
	if err := errors.Join(
		keeper.Register(mgr),
		approve.Register(mgr),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("certificate", keeper.Ready),
		mgr.Add(&restored{client: clients, namespace: o.namespace, every: lookEvery}),
		mgr.Add(&listener{address: o.address, handler: mux, certificate: keeper.GetCertificate}),
	); err != nil {
		return fmt.Errorf("wire the parts: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

// managerOptions narrow the cache to what the program's account may read.
func managerOptions(o options) ctrl.Options {
	scheme := runtime.NewScheme()
	_ = clientgoscheme.AddToScheme(scheme) // the generated scheme can't fail
	_ = v1alpha1.AddToScheme(scheme)       // nor can ours
	named := func(name string) fields.Selector { return fields.OneTermEqualSelector("metadata.name", name) }
	return ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       server.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.healthAddress,
		LeaderElection:                true,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {
				Namespaces: map[string]cache.Config{o.namespace: {FieldSelector: named(o.secret)}},
			},
			&admissionregistrationv1.MutatingWebhookConfiguration{}:   {Field: named(o.mutatingConfig)},
			&admissionregistrationv1.ValidatingWebhookConfiguration{}: {Field: named(o.validatingConfig)},
			&certificatesv1.CertificateSigningRequest{}: {
				Field: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName),
			},
			&corev1.Node{}: {Label: labels.SelectorFromSet(labels.Set{contract.NodeLabel: contract.NodeLabelValue})},
		}},
	}
}

// listener serves the webhooks on every replica, leader or not.
type listener struct {
	address     string
	handler     http.Handler
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// NeedLeaderElection says no to the manager.
func (l *listener) NeedLeaderElection() bool { return false }

// Start serves until ctx ends, then lets requests in flight finish.
func (l *listener) Start(ctx context.Context) error {
	tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
	if err != nil {
		return fmt.Errorf("listen for the API server: %w", err)
	}
	srv := &http.Server{
		Handler:           l.handler,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       5 * time.Minute,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: l.certificate, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:          klog.NewStandardLogger("INFO"), // handshakes of port scanners and of the first seconds
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		stopped <- srv.Shutdown(ctx)
	}()
	klog.InfoS("Serving webhooks", "address", tcp.Addr().String())
	if err := srv.ServeTLS(tcp, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve webhooks: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stop serving webhooks: %w", err)
	}
	return nil
}
