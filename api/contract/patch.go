package contract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Op is one operation of a JSON Patch (RFC 6902).
type Op struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch gathers the operations of one pass over a pod. All paths are those of the
// pod as it came: elements are taken out of lists last, from the end.
type patch struct {
	ops   []Op
	lists []removals
}

type removals struct {
	list    string
	length  int
	indices []int
}

// edit is a part of a patch, applied when the rule that made it may.
type edit func(*patch)

func set(path string, value any) edit {
	return func(p *patch) { p.ops = append(p.ops, Op{Op: "add", Path: path, Value: value}) }
}

func remove(path string) edit {
	return func(p *patch) { p.ops = append(p.ops, Op{Op: "remove", Path: path}) }
}

// removeAt takes element i out of a list of length elements; a list that loses
// all of them goes itself.
func removeAt(list string, i, length int) edit {
	return func(p *patch) {
		at := slices.IndexFunc(p.lists, func(r removals) bool { return r.list == list })
		if at < 0 {
			p.lists = append(p.lists, removals{list: list, length: length})
			at = len(p.lists) - 1
		}
		if !slices.Contains(p.lists[at].indices, i) {
			p.lists[at].indices = append(p.lists[at].indices, i)
		}
	}
}

// finish orders the operations: edits in place, then removals, inner lists first.
func (p *patch) finish() []Op {
	slices.SortStableFunc(p.lists, func(a, b removals) int {
		return cmp.Compare(strings.Count(b.list, "/"), strings.Count(a.list, "/"))
	})
	ops := p.ops
	for _, r := range p.lists {
		if len(r.indices) == r.length {
			ops = append(ops, Op{Op: "remove", Path: r.list})
			continue
		}
		slices.Sort(r.indices)
		for _, i := range slices.Backward(r.indices) {
			ops = append(ops, Op{Op: "remove", Path: fmt.Sprintf("%s/%d", r.list, i)})
		}
	}
	return ops
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escape makes a key one token of a JSON pointer (RFC 6901).
func escape(key string) string { return pointerEscapes.Replace(key) }
