package support

import (
	"fmt"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/output"
)

// Changes is what admission changed on a pod, a line a change.
func Changes(entries []contract.Entry) *metav1.Table {
	rows := make([][]string, len(entries))
	for i, e := range entries {
		why := ""
		if row, ok := contract.Lookup(e.Feature); ok {
			why = gist(row.Text)
		}
		rows[i] = []string{or(string(e.Feature)), e.Field, or(string(e.Action)), or(short(string(e.Old), 40)), or(why)}
	}
	return output.Table([]output.Column{{Name: "Feature"}, {Name: "Field"}, {Name: "Action"}, {Name: "Old"}, {Name: "Why"}}, rows)
}

// Unchanged says why a pod carries no annotation of admission.
func Unchanged(pod *corev1.Pod, ns contract.Namespace) (string, error) {
	seen, err := contract.FromPod(pod)
	if err != nil {
		return "", err
	}
	labels, opted := pod.Labels[contract.ScheduleLabel], pod.Labels[contract.ScheduleLabel] == "true"
	switch {
	case contract.Targets(seen, ns):
		return "It is an AI node's pod: it needed no change, or it was made before the webhook was there.", nil
	case labels == "false":
		return fmt.Sprintf("Its label %s: \"false\" keeps AI nodes and their webhook off it.", contract.ScheduleLabel), nil
	case opted:
		return "It opts in by label, but it can't run on an AI node: it names another node, belongs to a DaemonSet, or its namespace is left alone.", nil
	default:
		return fmt.Sprintf("It is no AI node's pod: no webhook of ours looks at it. To opt in, label it %s: \"true\" when it is made.", contract.ScheduleLabel), nil
	}
}

func or(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}

func short(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}
