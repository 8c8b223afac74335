package kubeletapi

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	translation "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// wanted are the streams that the client asks for. A terminal has one output.
func wanted(r *http.Request, tty bool) translation.Options {
	return translation.Options{
		Stdin: yes(r, corev1.ExecStdinParam), Stdout: yes(r, corev1.ExecStdoutParam), Stderr: yes(r, corev1.ExecStderrParam) && !tty, Tty: tty,
	}
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	ref := refOf(r)
	if pod, _ := s.container(w, ref); pod == nil {
		return
	}
	id, err := s.o.Pods.ContainerID(ref.namespace, ref.name, ref.uid, ref.container)
	if err != nil {
		refuse(w, err)
		return
	}
	o := wanted(r, yes(r, corev1.ExecTTYParam))
	answer, err := s.o.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: r.URL.Query()[corev1.ExecCommandParam], Tty: o.Tty, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
	})
	if err != nil {
		refuse(w, err)
		return
	}
	stream(w, r, answer.GetUrl(), o)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	ref := refOf(r)
	pod, spec := s.container(w, ref)
	if pod == nil {
		return
	}
	id, err := s.o.Pods.ContainerID(ref.namespace, ref.name, ref.uid, ref.container)
	if err != nil {
		refuse(w, err)
		return
	}
	o := wanted(r, spec.TTY) // whether there is a terminal was decided when the container was made
	answer, err := s.o.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
		ContainerId: id, Tty: o.Tty, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
	})
	if err != nil {
		refuse(w, err)
		return
	}
	stream(w, r, answer.GetUrl(), o)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	ref := refOf(r)
	id, err := s.o.Pods.SandboxID(ref.namespace, ref.name, ref.uid)
	if err != nil {
		refuse(w, err)
		return
	}
	answer, err := s.o.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id})
	if err != nil {
		refuse(w, err)
		return
	}
	stream(w, r, answer.GetUrl(), translation.Options{})
}

// stream hands the connection to the runtime's streaming server: an HTTP upgrade
// whose bytes are passed on. The two WebSocket protocols of kubectl, which runtimes do
// not speak, are made into SPDY here, as a kubelet does since 1.36 (KEP-4006).
func stream(w http.ResponseWriter, r *http.Request, location string, o translation.Options) {
	to, err := url.Parse(location)
	if err != nil {
		refuse(w, fmt.Errorf("read the runtime's streaming address: %w", err))
		return
	}
	// A client that hangs up first is the usual end of a stream, which the proxy logs
	// as an error.
	r = r.WithContext(logr.NewContext(r.Context(), logr.Discard()))
	var handler http.Handler = proxy.NewUpgradeAwareHandler(to, nil, false, true, responder{})
	switch {
	case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		handler = translation.NewStreamTranslatorHandler(to, nil, 0, o)
	case wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		handler = translation.NewTunnelingHandler(handler)
	}
	handler.ServeHTTP(w, r)
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	klog.Background().V(2).Info("Stream broke", "path", r.URL.Path, "cause", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func refuse(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
