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
	lists []*removals
	named map[string]*removals
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
		r := p.named[list]
		if r == nil {
			r = &removals{list: list, length: length}
			p.lists = append(p.lists, r)
			if p.named == nil {
				p.named = map[string]*removals{}
			}
			p.named[list] = r
		}
		r.indices = append(r.indices, i)
	}
}

// finish orders the operations: edits in place, then removals, inner lists first.
func (p *patch) finish() []Op {
	slices.SortStableFunc(p.lists, func(a, b *removals) int {
		return cmp.Compare(strings.Count(b.list, "/"), strings.Count(a.list, "/"))
	})
	ops := p.ops
	for _, r := range p.lists {
		slices.Sort(r.indices)
		r.indices = slices.Compact(r.indices) // two volumes of one name share their mounts
		if len(r.indices) == r.length {
			ops = append(ops, Op{Op: "remove", Path: r.list})
			continue
		}
		for _, i := range slices.Backward(r.indices) {
			ops = append(ops, Op{Op: "remove", Path: fmt.Sprintf("%s/%d", r.list, i)})
		}
	}
	return ops
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escape makes a key one token of a JSON pointer (RFC 6901).
func escape(key string) string { return pointerEscapes.Replace(key) }
