package nodes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Similar are the names that somebody who typed name may have meant, best first,
// at most three.
func Similar(name string, names []string) []string {
	type near struct {
		name string
		far  int
	}
	var found []near
	for _, n := range names {
		if far := distance(strings.ToLower(name), n); far <= max(2, len(name)/3) {
			found = append(found, near{n, far})
		}
	}
	slices.SortFunc(found, func(a, b near) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	var best []string
	for _, f := range found[:min(3, len(found))] {
		best = append(best, f.name)
	}
	return best
}

// Unknown is the error for an AI node that is not there; who mistyped a name is
// told the ones that look like it.
func Unknown(ctx context.Context, hub *kube.Cluster, node string) error {
	text := fmt.Sprintf("there is no AI node %q", node)
	var names []string
	if list, err := hub.AINodes(ctx); err == nil { // without it, what is known is told
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
	}
	if near := Similar(node, names); len(near) > 0 {
		text += "; there is " + strings.Join(near, ", ")
	}
	return remedy.New("See all", "kubectl ainode list", "%s", text)
}

// distance is the Levenshtein distance of a and b.
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	for j := range before {
		before[j] = j
	}
	for i := range len(a) {
		now := make([]int, len(b)+1)
		now[0] = i + 1
		for j := range len(b) {
			change := before[j]
			if a[i] != b[j] {
				change++
			}
			now[j+1] = min(change, before[j+1]+1, now[j]+1)
		}
		before = now
	}
	return before[len(b)]
}
