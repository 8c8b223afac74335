package check

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// step is one part of a field's path: a key, or the index of an element.
type step struct {
	key   string
	index int // -1 where it is a key
}

// steps takes a path apart: spec.containers[0].resources.limits[nvidia.com/gpu].
func steps(field string) []step {
	var all []step
	for field != "" {
		if field[0] == '[' {
			inner, rest, _ := strings.Cut(field[1:], "]")
			field = strings.TrimPrefix(rest, ".")
			if i, err := strconv.Atoi(inner); err == nil && i >= 0 {
				all = append(all, step{index: i})
			} else {
				all = append(all, step{key: inner, index: -1})
			}
			continue
		}
		end := strings.IndexAny(field, ".[")
		if end < 0 {
			end = len(field)
		}
		all = append(all, step{key: field[:end], index: -1})
		field = strings.TrimPrefix(field[end:], ".")
	}
	return all
}

// lineOf is the line of a field below node, or of the innermost field above it that
// is there.
func lineOf(node *yaml.Node, field string) int {
	line := 0
	if node = follow(node); node != nil {
		line = node.Line
	}
	for _, s := range steps(field) {
		at, value := child(node, s)
		if value == nil {
			return line
		}
		line, node = at, follow(value)
	}
	return line
}

// find is the value of a field below node; nil where it is not there.
func find(node *yaml.Node, field string) *yaml.Node {
	node = follow(node)
	for _, s := range steps(field) {
		_, value := child(node, s)
		node = follow(value)
	}
	return node
}

func follow(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func child(node *yaml.Node, s step) (line int, value *yaml.Node) {
	switch {
	case node == nil:
	case node.Kind == yaml.SequenceNode && s.index >= 0:
		if s.index < len(node.Content) {
			return node.Content[s.index].Line, node.Content[s.index]
		}
	case node.Kind == yaml.MappingNode && s.index < 0:
		for i := len(node.Content) - 2; i >= 0; i -= 2 { // the last of two counts
			if node.Content[i].Value == s.key {
				return node.Content[i].Line, node.Content[i+1]
			}
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value != "<<" {
				continue
			}
			for _, merged := range mergedInto(node.Content[i+1]) {
				if line, value := child(merged, s); value != nil {
					return line, value
				}
			}
		}
	}
	return 0, nil
}

// mergedInto are the mappings that a merge key brings in.
func mergedInto(value *yaml.Node) []*yaml.Node {
	value = follow(value)
	if value == nil || value.Kind != yaml.SequenceNode {
		return []*yaml.Node{value}
	}
	var all []*yaml.Node
	for _, v := range value.Content {
		all = append(all, follow(v))
	}
	return all
}
