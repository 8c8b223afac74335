package binding

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// statusPeriod is the least time between two writes of a status that says nothing
// new about the binding.
const statusPeriod = 10 * time.Second

// dropped is after how long the hub is told once more what it did not keep when it was told:
// fields that its CRD, which is older than this agent, does not have yet.
const dropped = 10 * time.Minute

// Condition reasons of an AINode.
const (
	reasonRunning  = "AgentRunning"
	reasonProblem  = "Problem"
	reasonAccepted = "Accepted"
	reasonRefused  = "Unauthorized"
	reasonConflict = "AnotherMachine"
	reasonAlone    = "OneMachine"
	reasonAnswered = "Answered"
	reasonSilent   = "NoAnswer"

	reasonClockOff   = "ClockSkew"
	reasonClockRight = "ClockRight"
	reasonSigned     = "Signed"
	reasonSelfSigned = "SelfSigned"
)

// Facts are what the agent reports of its machine.
type Facts struct {
	// Address is the one that the agent chooses, Addresses are all.
	Address   string
	Addresses []string
	// Lacks reports whether the machine is known not to have an address at the moment; nil
	// where nothing is known.
	Lacks        func(address string) bool
	GPUs         []v1alpha1.GPU
	Simulated    string
	Capacity     map[string]resource.Quantity
	Machine      v1alpha1.Machine
	AgentVersion string
}

// condition sets one condition, keeping its transition time where nothing changed.
func condition(conditions *[]metav1.Condition, now time.Time, kind string, ok bool, reason, message string) {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now).Rfc3339Copy(),
	})
}

// complaint is how a machine begins that another one holds the name of.
func complaint(machine string) string { return "machine " + machine + " claims this name" }

// settled drops a complaint of another machine that it no longer repeats, or of this one,
// which has the name by now.
func settled(conditions []metav1.Condition, now time.Time, holder string) []metav1.Condition {
	conditions = slices.Clone(conditions)
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionConflict)
	if c == nil || c.Status == metav1.ConditionTrue && now.Sub(c.LastTransitionTime.Time) < v1alpha1.ConflictLife &&
		!strings.HasPrefix(c.Message, complaint(holder)) {
		return conditions
	}
	condition(&conditions, now, v1alpha1.ConditionConflict, false, reasonAlone, "")
	return conditions
}

// urgent reports whether the change from have to want must not wait: people and
// the plugin watch these fields.
func urgent(have, want v1alpha1.AINodeStatus) bool {
	if have.BindStatus != want.BindStatus || have.ObservedEpoch != want.ObservedEpoch || have.PublicKey != want.PublicKey {
		return true
	}
	for _, c := range want.Conditions {
		old := meta.FindStatusCondition(have.Conditions, c.Type)
		if old == nil || old.Status != c.Status {
			return true
		}
	}
	return false
}

// statusPatch is the merge patch from have to want; nil if they are equal.
func statusPatch(have, want v1alpha1.AINodeStatus) ([]byte, error) {
	if apiequality.Semantic.DeepEqual(have, want) {
		return nil, nil
	}
	type body struct {
		Status v1alpha1.AINodeStatus `json:"status"`
	}
	before, err := json.Marshal(body{have})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	after, err := json.Marshal(body{want})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := jsonpatch.CreateMergePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("make status patch: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	return patch, nil
}
