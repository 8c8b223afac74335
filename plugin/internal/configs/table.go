package configs

import (
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

var columns = []output.Column{
	{Name: "Name"}, {Name: "Server"}, {Name: "Version"}, {Name: "Bound"}, {Name: "Age"},
	{Name: "Nodes", Wide: true}, {Name: "Cluster UID", Wide: true},
}

// ListRights are what listing configs needs on the hub.
func ListRights() []preflight.Right {
	return []preflight.Right{{Verb: "list", Group: contract.Group, Resource: "clusterconfigs"}}
}

// Table is what configs shows.
func Table(configs []v1alpha1.ClusterConfig, now time.Time) *metav1.Table {
	rows := make([][]string, len(configs))
	for i, c := range configs {
		age, nodes, version := "<none>", "<none>", "<none>"
		if !c.CreationTimestamp.IsZero() {
			age = duration.HumanDuration(now.Sub(c.CreationTimestamp.Time))
		}
		if len(c.Status.BoundNodes) > 0 {
			nodes = strings.Join(c.Status.BoundNodes, ",")
		}
		if c.Status.KubernetesVersion != "" {
			version = c.Status.KubernetesVersion
		}
		rows[i] = []string{c.Name, c.Spec.Server, version, strconv.Itoa(len(c.Status.BoundNodes)), age, nodes, c.Spec.ClusterUID}
	}
	return output.Table(columns, rows)
}
