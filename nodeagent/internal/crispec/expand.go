package crispec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// expand replaces $(NAME) by the value of NAME; $$ is a dollar sign, so $$(NAME)
// stays $(NAME). A reference to an unknown name, and any other use of $, stays as
// it is. These are the rules for env values, commands and arguments in the API.
func expand(text string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "("):
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed {
				b.WriteString("$(")
				text = rest[1:]
				continue
			}
			if value, ok := lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			text = after
		default:
			b.WriteByte('$')
			text = rest
		}
	}
}

func expandAll(texts []string, lookup func(string) (string, bool)) []string {
	var all []string
	for _, text := range texts {
		all = append(all, expand(text, lookup))
	}
	return all
}

// ExpandStatic expands the command of an exec probe by the values that stand in the
// container's own definition; others are not known outside of it.
func ExpandStatic(command []string, c *corev1.Container) []string {
	var env []*runtimeapi.KeyValue
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env = append(env, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
		}
	}
	return expandAll(command, lookupIn(env))
}

func lookupIn(env []*runtimeapi.KeyValue) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := len(env) - 1; i >= 0; i-- {
			if env[i].Key == name {
				return string(env[i].Value), true
			}
		}
		return "", false
	}
}

// ExpandSubPaths returns c with each subPathExpr replaced by the subPath that it
// comes to; c itself where there is none. A variable that env does not have is a
// *ConfigError: its name would become a directory.
func ExpandSubPaths(c *corev1.Container, env []*runtimeapi.KeyValue) (*corev1.Container, error) {
	if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.SubPathExpr != "" }) {
		return c, nil
	}
	lookup := lookupIn(env)
	expanded := c.DeepCopy()
	for i := range expanded.VolumeMounts {
		m := &expanded.VolumeMounts[i]
		if m.SubPathExpr == "" {
			continue
		}
		var unknown []string
		m.SubPath = expand(m.SubPathExpr, func(name string) (string, bool) {
			value, ok := lookup(name)
			if !ok {
				unknown = append(unknown, name)
			}
			return value, ok
		})
		if len(unknown) > 0 {
			return nil, configErrorf("subPathExpr %q names %s, which the container's environment does not have",
				m.SubPathExpr, strings.Join(unknown, ", "))
		}
		m.SubPathExpr = ""
	}
	return expanded, nil
}
