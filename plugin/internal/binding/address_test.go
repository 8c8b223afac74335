package binding

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// What stands in the record decides where certificates are approved for: of two binds at
// the same moment, one that asked for nothing goes by what the other has chosen, and one
// that asked for another address does not go on as if it had it.
func TestWhatTheRecordKeepsOfAnAddress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asked, has string
		claimed    bool
		want, err  string
	}{
		"none":                                {"", "", true, "10.0.0.5", ""},
		"the one asked for":                   {"10.9.0.5", "10.9.0.5", true, "10.9.0.5", ""},
		"dropped by an older chart":           {"10.9.0.5", "", true, "", "its records are of an older version"},
		"chosen by another, none asked for":   {"", "10.9.0.5", false, "10.9.0.5", ""},
		"chosen by another, and not this one": {"10.9.0.6", "10.9.0.5", false, "", "was bound meanwhile, and is reached at 10.9.0.5"},
		"bound by another without any":        {"10.9.0.6", "", false, "", "was bound meanwhile, and is reached at 10.0.0.5"},
	} {
		p := &Plan{Request: Request{Node: "ai-1", Address: c.asked}, address: "10.0.0.5"}
		if c.asked != "" {
			p.address = c.asked
		}
		err := p.keptAddress(&v1alpha1.AINode{
			ObjectMeta: metav1.ObjectMeta{Name: "ai-1"}, Spec: v1alpha1.AINodeSpec{Address: c.has}, Status: v1alpha1.AINodeStatus{Address: "10.0.0.5"},
		}, c.claimed)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, p.address, name)
	}
}
