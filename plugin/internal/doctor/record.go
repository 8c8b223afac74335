package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

// What the hub knows of a node.
var recordChecks = []check{
	{"binding", Node, before, mayBeBound},
	{"agent", Node, standing, agentAlive},
	{"agent-clock", Node, standing | before, agentClock},
	{"agent-version", Node, standing | before, agentVersion},
	{"agent-ready", Node, standing | before, agentReady},
	{"conflict", Node, standing | before, conflict},
	{"credential", Node, standing, credential},
	{"bind-status", Node, standing, bindStatus},
	{"pods-network", Node, standing, podsNetwork},
	{"gpus", Node, standing | before, gpus},
	{"address", Node, standing | before, address},
	{"pending-pods", Node, before, pendingPods},
}

// sign is the agent's last sign of life, not known where the Leases can't be read.
func (s *sight) sign() (nodes.Sign, error) {
	signs, err := s.signs()
	if err != nil {
		return nodes.Sign{}, err
	}
	if sign, ok := signs[s.node.Name]; ok {
		return sign, nil
	}
	return nodes.SignOf(nil), nil
}

// joined reports whether there is a machine at all.
func (s *sight) joined() bool { return s.node.Status.PublicKey != "" }

// mayBeBound is what bind itself judges a node by.
func mayBeBound(ctx context.Context, s *sight) (string, []flaw, error) {
	if s.Plan == nil {
		return "", nil, nil
	}
	err := s.Plan(ctx, s.node.Name)
	if apierrors.IsForbidden(err) {
		return "", nil, err
	}
	if err != nil {
		return "", []flaw{flawOf(Error, err, "bind would refuse it")}, nil
	}
	return "nothing of its record, its machine or its name speaks against it", nil, nil
}

func agentAlive(_ context.Context, s *sight) (string, []flaw, error) {
	name := s.node.Name
	if !s.joined() {
		return one(Warning, "no machine has joined under this name", "it can't be bound before", fix("Print the command to run there", "kubectl ainode add %s", name))
	}
	sign, err := s.sign()
	if err != nil {
		return "", nil, err
	}
	now := s.Clock.Now()
	if sign.Alive(now) {
		return "alive, seen " + nodes.Age(sign.Seen, now) + " ago", nil, nil
	}
	since := "it was never seen"
	if !sign.Seen.IsZero() {
		since = fmt.Sprintf("lost since %s, %s ago", sign.Seen.UTC().Format("2006-01-02 15:04:05 UTC"), nodes.Age(sign.Seen, now))
	}
	why, gone := "it can't be bound", "kubectl ainode remove "+name
	if s.node.Spec.ClusterConfigName != "" {
		gone = "kubectl ainode unbind " + name + " --force"
		why = "its pods run on if the machine does, and none is started in their place; logs, exec and unbind wait for it"
	}
	return one(Error, "its agent gives no sign of life: "+since, why,
		fix("On the machine", "systemctl status ainode-agent; ainode-agent doctor"), fix("If it is gone for good", "%s", gone))
}

// agentClock compares the machine's clock, by which it renews its Lease, with the
// hub's, by which the hub notes that it did.
func agentClock(_ context.Context, s *sight) (string, []flaw, error) {
	sign, err := s.sign()
	if err != nil || sign.Written.IsZero() || sign.Seen.IsZero() {
		return "", nil, nil // the check "agent" says so, or the hub does not
	}
	if apart := sign.Seen.Sub(sign.Written); apart.Abs() > skew {
		return one(Warning, fmt.Sprintf("the machine's clock is %s the hub's", aheadOf(apart)),
			"certificates and tokens may count as not yet valid or as expired there, and a living node as lost", fix("On the machine", "timedatectl set-ntp true"))
	}
	return "the same as the hub's, within " + skew.String(), nil, nil
}

// agentVersion compares major and minor: those of one release are made to fit.
func agentVersion(_ context.Context, s *sight) (string, []flaw, error) {
	theirs := s.node.Status.AgentVersion
	agent, err1 := utilversion.ParseGeneric(theirs)
	plugin, err2 := utilversion.ParseGeneric(s.Version)
	if !s.joined() || err1 != nil || err2 != nil {
		return theirs, nil, nil // a build of one's own is nobody's release
	}
	if agent.Major() != plugin.Major() || agent.Minor() != plugin.Minor() {
		return one(Warning, fmt.Sprintf("its agent is %s, this plugin %s", theirs, s.Version), "they were not tried together",
			fix("Install on the machine the agent of this plugin's version; compare all", "kubectl ainode list -o wide"))
	}
	return theirs, nil, nil
}

func condition(r *v1alpha1.AINode, kind string, bad metav1.ConditionStatus) (text string, is bool) {
	c := meta.FindStatusCondition(r.Status.Conditions, kind)
	if c == nil || c.Status != bad {
		return "", false
	}
	return strings.Trim(c.Reason+": "+c.Message, ": "), true
}

func agentReady(_ context.Context, s *sight) (string, []flaw, error) {
	if nodes.Outdated(s.node) {
		return one(Warning, fmt.Sprintf("its machine serves epoch %d, its record knows %d: the hub was restored from a backup", s.node.Status.ObservedEpoch, s.node.Spec.BindEpoch),
			"its pods run on; unbind does not know their cluster", fix("Have the hub learn it", "kubectl ainode bind %s --to CONFIG", s.node.Name))
	}
	text, bad := condition(s.node, v1alpha1.ConditionReady, metav1.ConditionFalse)
	if nodes.EndLost(s.node) {
		return one(Warning, "its record has lost when its binding ends: "+text, "the machine goes by what it knows; the record tells people otherwise",
			fix("Have the hub learn it", "kubectl ainode bind %s --to %s", s.node.Name, s.node.Spec.ClusterConfigName))
	}
	if bad && !nodes.AddressMissing(s.node) { // nothing else is wrong then, and the check "address" tells that
		return one(Error, "its agent is not ready: "+text, "no pod starts there", fix("On the machine", "ainode-agent doctor; journalctl -u ainode-agent -n 50"))
	}
	if meta.FindStatusCondition(s.node.Status.Conditions, v1alpha1.ConditionReady) == nil {
		return "", nil, nil // nothing is said yet
	}
	return "its runtime and cards answer", nil, nil
}

func conflict(_ context.Context, s *sight) (string, []flaw, error) {
	text, bad := condition(s.node, v1alpha1.ConditionConflict, metav1.ConditionTrue)
	if !bad {
		return "", nil, nil
	}
	said, now := meta.FindStatusCondition(s.node.Status.Conditions, v1alpha1.ConditionConflict).LastTransitionTime.Time, s.Clock.Now()
	over := "once the agent of who has the name runs"
	if left := said.Add(v1alpha1.ConflictLife).Sub(now); left > 0 {
		over = "in " + duration.HumanDuration(left)
	}
	return one(Error, fmt.Sprintf("a second machine runs under this name: %s; it said so last %s ago", text, nodes.Age(said, now)),
		"that one touches nothing; if it is a copy of the disk it must become another node",
		fix("On the machine that is not the one", "systemctl disable --now ainode-agent"),
		fmt.Sprintf("If that one is stopped already, this is over %s: who has the name drops the complaint %s after it was made last", over, duration.HumanDuration(v1alpha1.ConflictLife)))
}

func credential(_ context.Context, s *sight) (string, []flaw, error) {
	if s.node.Spec.ClusterConfigName == "" {
		return "", nil, nil
	}
	if text, bad := condition(s.node, v1alpha1.ConditionCredentialValid, metav1.ConditionFalse); bad {
		return one(Error, "the target refuses its credential: "+text, "its pods run on, nothing new starts there and nothing is told of them",
			fix("Have a new one made", "kubectl ainode renew %s", s.node.Name))
	}
	if meta.FindStatusCondition(s.node.Status.Conditions, v1alpha1.ConditionCredentialValid) == nil {
		return "", nil, nil // nothing is said yet
	}
	return "accepted by the target", nil, nil
}

// bindStatus tells of a walk that is not at its end. It may be going on right now.
func bindStatus(_ context.Context, s *sight) (string, []flaw, error) {
	spec, status, name := s.node.Spec, s.node.Status, s.node.Name
	if !s.joined() {
		return "", nil, nil
	}
	again := fix("Wait for its end", "kubectl ainode bind %s --to %s", name, spec.ClusterConfigName)
	switch {
	case spec.ClusterConfigName == "" && !s.node.Released():
		return one(Warning, fmt.Sprintf("it is unbound, and its agent reports %s of epoch %d", status.BindStatus, status.ObservedEpoch),
			"the machine has not stopped everything of that binding yet", fix("Finish it", "kubectl ainode unbind %s", name))
	case spec.ClusterConfigName == "":
		return unbound(s.node), nil, nil
	case spec.Draining:
		return one(Warning, "it is being unbound from "+spec.ClusterConfigName, "it takes no new pods",
			fix("Go on", "kubectl ainode unbind %s", name), fix("Or call it off", "kubectl ainode bind %s --to %s", name, spec.ClusterConfigName))
	case nodes.Renewing(s.node):
		_, flaws, _ := one(Warning, fmt.Sprintf("its credential is being renewed: its agent acts with that of epoch %d, wanted is %d", status.ObservedEpoch, spec.BindEpoch),
			"its pods run on; the account before lives until that is through", fix("Go on", "kubectl ainode renew %s", name))
		_, ending, err := bound(s.node, s.Clock.Now())
		return "", append(flaws, ending...), err
	case status.ObservedEpoch != spec.BindEpoch || status.BindStatus != v1alpha1.Bound && !drainsForEnd(s.node):
		return one(Warning, fmt.Sprintf("it is being bound to %s: its agent reports %s of epoch %d, wanted is %d", spec.ClusterConfigName, status.BindStatus, status.ObservedEpoch, spec.BindEpoch),
			"it does not serve yet", again)
	}
	return bound(s.node, s.Clock.Now())
}

// drainsForEnd reports whether the agent sends pods away since the binding ends: nobody
// has asked for that just now.
func drainsForEnd(r *v1alpha1.AINode) bool {
	return r.Status.BindStatus == v1alpha1.Draining && (r.Spec.Until != nil || nodes.EndLost(r))
}

// bound tells a binding's end with it, and warns once that is near.
func bound(r *v1alpha1.AINode, now time.Time) (string, []flaw, error) {
	text := fmt.Sprintf("bound to %s, epoch %d", r.Spec.ClusterConfigName, r.Spec.BindEpoch)
	left, ends := nodes.LeftToDrain(r, now)
	if !ends {
		return text, nil, nil
	}
	text += ", until " + nodes.Ending(r, now)
	bind := "kubectl ainode bind " + r.Name + " --to " + r.Spec.ClusterConfigName
	later, none := fix("Have it end later", "%s --until 8h", bind), fix("Or not at all", "%s --until none", bind)
	switch {
	case !now.Before(r.Spec.Until.Time):
		return one(Warning, text, "its time is over, and its agent has not let go: it may be silent, still stop pods, or have a clock that does not agree with the hub's",
			fix("Unbind it (one that is lost, and known to be off, with --force)", "kubectl ainode unbind %s", r.Name), later)
	case left <= 0:
		return one(Warning, text, "no new pods come, and those there are sent away", later, none)
	case left <= time.Hour:
		return one(Warning, text, "whatever runs there goes soon", later, none)
	}
	return text, nil, nil
}

// unbound says how it came to be so, where that was by force.
func unbound(record *v1alpha1.AINode) string {
	if c := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionForced); c != nil {
		return "unbound; " + c.Message
	}
	return "unbound"
}

// podsNetwork is there where the binding gives each pod an address of its own.
func podsNetwork(_ context.Context, s *sight) (string, []flaw, error) {
	pods := s.node.Spec.PodCIDR
	if pods == "" {
		return "", nil, nil
	}
	if text, bad := condition(s.node, v1alpha1.ConditionPodsAnswered, metav1.ConditionFalse); bad {
		return one(Warning, fmt.Sprintf("no answer comes to an address of its pods, of %s: %s", pods, text), "the range is not routed to the machine, or a firewall lies between",
			"have "+pods+" routed to "+s.node.Status.Address)
	}
	if meta.FindStatusCondition(s.node.Status.Conditions, v1alpha1.ConditionPodsAnswered) == nil {
		return "", nil, nil // it has not been tried yet
	}
	return "the API server answers addresses of " + pods, nil, nil
}

func gpus(_ context.Context, s *sight) (string, []flaw, error) {
	if !s.joined() {
		return "", nil, nil
	}
	onMachine := fix("On the machine", "nvidia-smi; ainode-agent doctor")
	switch n := len(s.node.Status.GPUs); {
	case s.ExpectGPUs > 0 && n != s.ExpectGPUs:
		return one(Error, fmt.Sprintf("it has %s, %d expected", diagnosis.Count(n, "GPU"), s.ExpectGPUs), "a card that fell off its bus is not seen by the driver", onMachine)
	case n == 0:
		return one(Warning, "it has no GPU", "pods that ask for one never run there", onMachine)
	}
	return nodes.GPUs(s.node.Status) + nodes.Slices(s.node.Status), nil, nil
}
