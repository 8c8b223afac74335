package binding

import "github.com/ainode/ainode/api/v1alpha1"

// Record is what the hub's AINode wants of this machine.
type Record struct {
	ClusterConfigName string
	// Epoch is that of the wanted credential, Since that which the binding began in.
	Epoch, Since int64
	Draining     bool
}

// Claim is where the Lease of this node's name stands.
type Claim int

// The claims.
const (
	// Unclaimed: not asked yet, or no answer yet.
	Unclaimed Claim = iota
	// Ours: this machine holds the Lease.
	Ours
	// Elsewhere: another machine holds it and renews it, or is the one that the record's
	// binding was made with and may come back to it.
	Elsewhere
)

// Situation is everything that decides what to do next.
type Situation struct {
	// Record is nil until the hub has shown one.
	Record *Record
	// HubSilent is true when the hub was waited for in vain.
	HubSilent bool
	Claim     Claim
	// Credential is the epoch of the stored credential, Since that which its binding
	// began in; both 0 without one.
	Credential, Since int64
	// Serving is true while node and pods are looked after.
	Serving bool
	// Clean is true when nothing of a binding can be left on this machine: no
	// credential and, looked up once, no pod.
	Clean bool
	// Refused is true while the target answers 401.
	Refused bool
	// Leaving is true while pods are sent away because the binding is about to end.
	Leaving bool
	// Unheard is true when neither hub nor target has answered for longer than this
	// machine may run pods then.
	Unheard bool
	// Expired is true when the end of the record's binding has come, by a clock that
	// the hub agrees with, and no pod runs any more.
	Expired bool
}

// Step is what to do next.
type Step string

// The steps.
const (
	// Wait: too little is known to do anything.
	Wait Step = "Wait"
	// Rest: unbound, nothing to do.
	Rest Step = "Rest"
	// Obtain: get the credential of the record's epoch.
	Obtain Step = "Obtain"
	// Serve: look after node and pods with the stored credential.
	Serve Step = "Serve"
	// Refresh: serve with the stored credential, and look whether the hub has a new one
	// of the same binding: the target refuses the old one, or it is being renewed.
	Refresh Step = "Refresh"
	// Release: end every pod, wipe the binding. Only positive proof leads here.
	Release Step = "Release"
	// GiveBack: the binding's end has come: tell the hub, which leads to Release.
	GiveBack Step = "GiveBack"
	// Fence: end every pod and keep the binding: nobody has been heard for too long.
	Fence Step = "Fence"
	// Yield: another machine has this node's name; leave everything as it is.
	Yield Step = "Yield"
)

// outdated reports whether the record is older than what this machine serves. Epochs
// only grow, so that such a hub has been restored from a backup: what it says of the
// binding was true once, and is proof of nothing.
func (s Situation) outdated() bool { return s.Record != nil && s.Record.Epoch < s.Credential }

// over reports whether the record proves that a binding which has left something on this
// machine is over: it shows a later one, or no cluster. An outdated record proves nothing.
func (s Situation) over() bool {
	return s.Record != nil && !s.outdated() && !s.Clean && (s.Record.ClusterConfigName == "" || s.Credential < s.Record.Since)
}

// next decides the step. Silence, of the hub or the target, and a 401 never lead to
// Release, nor does a record that is outdated: only one that shows a later binding or no
// cluster does. A renewal is no other binding: its epoch is a new one, the epoch it
// began in is not. What is over ends here also where the name is another machine's by
// now: it was given to that one because this one was taken for gone.
func next(s Situation) Step {
	switch {
	case s.Claim == Elsewhere && s.over():
		return Release
	case s.Claim == Elsewhere:
		return Yield
	case s.Unheard && s.Credential != 0:
		return Fence
	case s.Record == nil && s.Credential == 0:
		return Wait
	case s.Record == nil && (s.Serving || s.HubSilent):
		return Serve
	case s.Record == nil:
		return Wait
	case s.outdated() && (s.Claim == Ours || s.Serving):
		return Serve
	case s.outdated():
		return Wait
	case s.over():
		return Release
	case s.Record.ClusterConfigName == "":
		return Rest
	case s.Expired && s.Claim == Ours:
		return GiveBack
	case s.Claim != Ours && !s.Serving:
		return Wait
	case s.Credential == 0:
		return Obtain
	case s.Refused, s.Credential != s.Record.Epoch:
		return Refresh
	default:
		return Serve
	}
}

// bindStatus is what step reports. before and observed are the record's own status,
// so that a restart does not take Bound back.
func bindStatus(step Step, s Situation, registered bool, before v1alpha1.BindStatus, observed int64) (v1alpha1.BindStatus, int64) {
	if s.Record == nil {
		return before, observed
	}
	epoch := s.Record.Epoch
	if s.outdated() {
		epoch = s.Credential
	}
	switch step {
	case Rest:
		return v1alpha1.Unbound, epoch
	case Obtain:
		return v1alpha1.Binding, epoch
	case Release:
		if s.Credential != 0 || s.Serving {
			return v1alpha1.Unbinding, s.Credential
		}
	case Serve, Refresh:
		// It speaks of the credential that is acted with. The node of a binding that is
		// renewed stands already.
		epoch = s.Credential
		was := observed >= s.Since && observed <= epoch && (before == v1alpha1.Bound || before == v1alpha1.Draining)
		switch {
		case !registered && !was:
			return v1alpha1.Binding, epoch
		case s.Record.Draining || s.Leaving:
			return v1alpha1.Draining, epoch
		default:
			return v1alpha1.Bound, epoch
		}
	case Wait, Yield, Fence:
	}
	if before == "" {
		before = v1alpha1.Unbound
	}
	return before, observed
}
