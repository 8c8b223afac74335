package binding

import (
	"context"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ainode/ainode/nodeagent/internal/term"
)

// Target is one binding, ready to be served.
type Target struct {
	Node string
	// Epoch is that of the credential, Since that which the binding began in: pods are
	// of the binding, whatever credential it has come to.
	Epoch, Since int64
	// Config reaches the target as the node.
	Config *rest.Config
	// ClientCA is the PEM that clients of :10250 are checked with.
	ClientCA []byte
	// Labels are the Node's labels besides the contract's.
	Labels map[string]string
	// PodCIDR is the range of the pods' addresses; empty: they share the machine's.
	PodCIDR string
	// Address is the machine's, chosen at bind; empty: the one that the tenant chooses.
	Address string
	// Refused reports whether the target answers 401.
	Refused func() bool
	// End is when the binding ends; it may be changed at any time.
	End *term.Known
	// HubTime is what time it is at the hub; false if it has not answered since this
	// machine booted.
	HubTime func() (now time.Time, heard bool)
}

// Tenant is what runs on a bound machine.
type Tenant interface {
	// Serve looks after node and pods until ctx ends, and leaves pods running then.
	// It calls registered once the Node stands, and when PodsAnswered says something
	// new. An error is tried again.
	Serve(ctx context.Context, target Target, registered func()) error
	// StopAll ends every pod on this machine, of any epoch, without any API. It is
	// called while Serve does not run, and again after an error.
	StopAll(ctx context.Context) error
	// GPUsInUse is how many cards living pods have. Cheap, safe at any time.
	GPUsInUse() int
	// PodsAnswered is whether the target answered an address of the pods, and if not,
	// why; nil where pods have no addresses of their own or it has not been tried.
	// Cheap, safe at any time.
	PodsAnswered() *Answer
	// ServingCertificate is where the certificate of the kubelet API stands. Cheap, safe
	// at any time.
	ServingCertificate() Certificate
}

// Certificate is where the kubelet API's certificate stands.
type Certificate int

// The certificates.
const (
	// NoCertificate: there is none, or one may still come.
	NoCertificate Certificate = iota
	// Signed: by the target.
	Signed
	// SelfSigned: nobody signed one.
	SelfSigned
)

// Answer is what came of asking the target from a pod's address: trouble is empty
// where it answered.
type Answer struct{ Trouble string }
