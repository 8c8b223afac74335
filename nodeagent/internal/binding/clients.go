package binding

import (
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

const userAgent = "ainode-agent"

// hubConfig reaches the hub with whatever signs the requests.
func hubConfig(j Joined, wrap func(http.RoundTripper) http.RoundTripper) *rest.Config {
	return &rest.Config{
		Host:            j.Server,
		TLSClientConfig: rest.TLSClientConfig{CAData: j.CertificateAuthorityData},
		WrapTransport:   wrap,
		UserAgent:       userAgent,
	}
}

// targetConfig reaches the target as the account that bind made, which may renew
// its own token and impersonate the node, nothing else.
func targetConfig(c handover.Credential, wrap func(http.RoundTripper) http.RoundTripper) *rest.Config {
	return &rest.Config{
		Host: c.Server,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.CertificateAuthorityData, ServerName: c.TLSServerName,
		},
		WrapTransport: wrap,
		UserAgent:     userAgent,
		Timeout:       0,
	}
}

// nodeConfig reaches the target as the node itself.
func nodeConfig(c handover.Credential, wrap func(http.RoundTripper) http.RoundTripper) *rest.Config {
	cfg := targetConfig(c, wrap)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: identity.NodeUser(c.Node), Groups: []string{identity.NodesGroup},
	}
	// A kubelet's rates: 50 a second, bursts of 100.
	cfg.QPS, cfg.Burst = 50, 100
	return cfg
}

// bearer signs with a token that is used a few times only.
func bearer(token string) func(http.RoundTripper) http.RoundTripper {
	k := &Keeper{token: Token{Value: token}}
	return k.Wrap
}

// clientFor is a clientset whose calls give up after a while: none of the calls
// made with it is a watch.
func clientFor(cfg *rest.Config) (kubernetes.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = 30 * time.Second
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	return client, nil
}

// records is a typed client of AINodes.
type records = gentype.ClientWithList[*v1alpha1.AINode, *v1alpha1.AINodeList]

func recordClient(cfg *rest.Config) (*records, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register AINode: %w", err)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath = "/apis"
	cfg.GroupVersion = &v1alpha1.GroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	return gentype.NewClientWithList("ainodes", client, metav1.ParameterCodec, "",
		func() *v1alpha1.AINode { return &v1alpha1.AINode{} },
		func() *v1alpha1.AINodeList { return &v1alpha1.AINodeList{} }), nil
}
