package nodes

import (
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/endtime"
	"github.com/ainode/ainode/plugin/internal/output"
)

// columns are those of list; README and tests show them. What stands in 80
// columns also where cards are simulated comes without -o wide.
var columns = []output.Column{
	{Name: "Name"}, {Name: "Status"}, {Name: "Cluster"}, {Name: "GPUs"}, {Name: "Used"}, {Name: "IP"}, {Name: "Age"},
	{Name: "Ends", Wide: true}, {Name: "Version", Wide: true}, {Name: "Epoch", Wide: true}, {Name: "Seen", Wide: true}, {Name: "Machine", Wide: true},
}

// Table is what list shows of records. signs may lack nodes, or be nil where the
// Leases can't be read.
func Table(records []v1alpha1.AINode, signs map[string]Sign, now time.Time) *metav1.Table {
	rows := make([][]string, len(records))
	for i := range records {
		rows[i] = row(&records[i], sign(signs, records[i].Name), now)
	}
	return output.Table(columns, rows)
}

func sign(signs map[string]Sign, node string) Sign {
	if signs == nil {
		return Sign{}
	}
	if s, ok := signs[node]; ok {
		return s
	}
	return SignOf(nil)
}

func row(r *v1alpha1.AINode, s Sign, now time.Time) []string {
	return []string{
		r.Name, since(r, s, now), or(r.Spec.ClusterConfigName), GPUs(r.Status), Used(r.Status),
		or(r.Status.Address), Age(r.CreationTimestamp.Time, now), or(ends(r, now)), or(r.Status.AgentVersion),
		strconv.FormatInt(r.Spec.BindEpoch, 10), Age(s.Seen, now), or(r.Status.Machine.ID),
	}
}

// since is how the node stands; of one that is silent, with how long it has been.
func since(r *v1alpha1.AINode, s Sign, now time.Time) string {
	status := Status(r, s, now)
	if (status == Lost || status == Forced && !s.Alive(now)) && !s.Seen.IsZero() {
		status += " " + Age(s.Seen, now)
	}
	return status
}

// ends is when the machine is free, for a person; empty if its binding has no end.
func ends(r *v1alpha1.AINode, now time.Time) string {
	if r.Spec.Until == nil || r.Spec.ClusterConfigName == "" {
		return ""
	}
	return endtime.Words(r.Spec.Until.Time, now) + " (" + endtime.In(r.Spec.Until.Time, now) + ")"
}

// Age is how long ago t was, as kubectl writes it.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return none
	}
	return duration.HumanDuration(now.Sub(t))
}

func or(text string) string {
	if text == "" {
		return none
	}
	return text
}
