package configs

import (
	"fmt"
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

// Lingering tells of nodes that are listed under a config and have been given back: their
// binding ended by itself, or whoever unbound them did not see it through. Nobody but the
// plugin knows both clusters; until it has looked, something may be left on the config's.
func Lingering(configs []v1alpha1.ClusterConfig, records []v1alpha1.AINode) []string {
	free := map[string]bool{}
	for i := range records {
		free[records[i].Name] = records[i].Spec.ClusterConfigName == "" && records[i].Released()
	}
	var all []string
	for _, c := range configs {
		for _, node := range c.Status.BoundNodes {
			if free[node] {
				all = append(all, fmt.Sprintf("%s still lists %s, which has been given back. See that nothing is left of it there:  kubectl ainode unbind %s", c.Name, node, node))
			}
		}
	}
	return all
}
