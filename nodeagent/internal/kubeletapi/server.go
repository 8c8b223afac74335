// Package kubeletapi answers what the API server asks of a node, on :10250 with
// TLS: logs, exec, attach, port-forward, pods, stats, metrics and health. Every
// request is authenticated and authorized by the target; anonymous is off.
package kubeletapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	criapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Pods is what the server needs to know of the node's pods. An empty uid means the
// pod that has this name now.
type Pods interface {
	// Pods are copies, with their latest status.
	Pods() []*corev1.Pod
	ContainerID(namespace, name string, uid types.UID, container string) (string, error)
	SandboxID(namespace, name string, uid types.UID) (string, error)
	LogPath(namespace, name string, uid types.UID, container string, previous bool) (string, error)
}

// Options of a Server; all are required.
type Options struct {
	Node string
	// Address is host:port to listen at.
	Address string
	// Client acts as the node; it reviews tokens and access.
	Client kubernetes.Interface
	// ClientCA is the PEM that client certificates are checked with.
	ClientCA []byte
	// Certificate returns the serving certificate, nil while there is none yet.
	Certificate func() *tls.Certificate
	Pods        Pods
	Usage       Usage
	Runtime     criapi.RuntimeService
	Images      criapi.ImageManagerService
	// Probes are the metrics of probes.
	Probes prometheus.Gatherer
	// GPUs are the metrics of GPUs, shown with the agent's own.
	GPUs  prometheus.Gatherer
	Clock clock.PassiveClock
}

// Server answers on :10250.
type Server struct {
	o    Options
	auth *authenticator
	may  *authorizer
}

// New makes a Server.
func New(o Options) (*Server, error) {
	auth, err := newAuthenticator(o.ClientCA, o.Client, o.Clock.Now)
	if err != nil {
		return nil, err
	}
	return &Server{o: o, auth: auth, may: newAuthorizer(o.Node, o.Client)}, nil
}

// Serve answers on l until ctx ends, then cuts what is still open.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := s.server(ctx)
	closed := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer closed()
	if err := server.ServeTLS(l, "", ""); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the kubelet API: %w", err)
	}
	return nil
}

// server has no read and no write timeout: a stream may idle for as long as the runtime
// lets it (containerd's stream_idle_timeout, four hours), and logs are followed without
// end. TCP's own keep-alive, on by default, finds dead clients.
func (s *Server) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(io.Discard, "", 0), // every port scan would be a line
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				if c := s.o.Certificate(); c != nil {
					return c, nil
				}
				return nil, errors.New("the serving certificate has not been signed yet")
			},
		},
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /healthz/{check}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /runningpods/", s.pods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.containerLogs)
	for _, method := range []string{"GET", "POST"} {
		for _, path := range []string{"{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"} {
			mux.HandleFunc(method+" /exec/"+path, s.exec)
			mux.HandleFunc(method+" /attach/"+path, s.attach)
		}
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	s.handleStats(mux)
	return s.guarded(mux)
}

// guarded lets nobody in whom the target does not know and allow. It comes before
// the routes, so that an unknown path tells a stranger nothing.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := s.auth.user(r)
		if errors.Is(err, errUnauthenticated) {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if err == nil {
			var ok bool
			if ok, err = s.may.allowed(r.Context(), user, r.Method, r.URL.Path); err == nil && !ok {
				http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)",
					user.Username, verb(r.Method, r.URL.Path), subresources(r.URL.Path)), http.StatusForbidden)
				return
			}
		}
		if err != nil {
			klog.FromContext(r.Context()).Error(err, "Request not checked", "path", r.URL.Path)
			http.Error(w, "the cluster could not be asked who you are", http.StatusInternalServerError)
			return
		}
		r.Header.Del("Authorization") // nothing behind this line needs it
		next.ServeHTTP(w, r)
	})
}

// podRef is the pod, and the container, that a path names.
type podRef struct {
	namespace, name string
	uid             types.UID
	container       string
}

func (p podRef) String() string { return p.namespace + "/" + p.name }

func refOf(r *http.Request) podRef {
	return podRef{
		namespace: r.PathValue("namespace"), name: r.PathValue("pod"),
		uid: types.UID(r.PathValue("uid")), container: r.PathValue("container"),
	}
}

// find returns the pod of ref, or nil.
func (s *Server) find(ref podRef) *corev1.Pod {
	for _, p := range s.o.Pods.Pods() {
		if p.Namespace == ref.namespace && p.Name == ref.name && (ref.uid == "" || ref.uid == p.UID) {
			return p
		}
	}
	return nil
}

// container returns the pod and the spec of the container of ref, or answers 404.
func (s *Server) container(w http.ResponseWriter, ref podRef) (*corev1.Pod, *corev1.Container) {
	pod := s.find(ref)
	if pod == nil {
		http.Error(w, fmt.Sprintf("pod %q does not exist on this node", ref), http.StatusNotFound)
		return nil, nil
	}
	if c := containerSpec(pod, ref.container); c != nil {
		return pod, c
	}
	http.Error(w, fmt.Sprintf("container %q not found in pod %q", ref.container, ref), http.StatusNotFound)
	return nil, nil
}

func containerSpec(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon); c.Name == name {
			return &c
		}
	}
	return nil
}

func yes(r *http.Request, key string) bool {
	v := r.URL.Query().Get(key)
	return v == "1" || strings.EqualFold(v, "true")
}
