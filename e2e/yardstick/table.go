package yardstick

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/ainode/ainode/api/contract"
)

// head is what docs/conformance.md begins with.
func head(all []column) string {
	var out strings.Builder
	fmt.Fprintf(&out, `# Conformance

Written by %[1]smake conformance%[1]s; do not edit.

The tests are not ours: they are those of the Kubernetes project's end-to-end suite, %[2]s, that are marked %[1]s[NodeConformance]%[1]s, without
Serial, Slow, Disruptive, Flaky and what is off by default. Each column is one run on one machine, %[3]d processors:

- *kubelet*: the ordinary node of e2e/devcluster. It shows what this machine lets pass at all.
- *AI node*: the agent by itself, with an address for each pod and no webhook. A policy in the API server writes the AI node's label and
  toleration into the suite's pods, nothing else. The suite chooses nodes among those without a taint, so the AI node's is taken off meanwhile.
- *with webhook*: the same behind the webhook, profile agent.

The suite's images are made here, without a registry, of busybox, bash, curl, nc and the suite's own agnhost.

`, "`", kubernetes, runtime.NumCPU())
	for _, c := range all {
		fmt.Fprintf(&out, "Column %s, %s: %s.\n", c.letter, c.title, c.when.UTC().Format("2006-01-02 15:04 MST"))
	}
	return out.String() + "\n"
}

// line is a test's row of the table.
type line struct {
	name                string
	kubelet, node, hook bool
	ruledOut            contract.Feature // "" where nothing of the contract is against it
	where               string           // of the AI node's failure
}

// everywhere reports whether all columns pass it.
func (l line) everywhere() bool { return l.kubelet && l.node && l.hook }

type table []line

// compare puts the columns side by side, and beside a test the row that rules it out.
// Only tests that ran in all of them count.
func compare(kubelet, node, hook results, ruledOut map[string]contract.Feature) table {
	var t table
	for _, name := range kubelet.names() {
		n, ran := node[name]
		h, ranToo := hook[name]
		if !ran || !ranToo {
			continue
		}
		l := line{name: name, kubelet: kubelet[name].passed, node: n.passed, hook: h.passed, ruledOut: ruledOut[name], where: n.where}
		if n.passed {
			l.where = h.where
		}
		t = append(t, l)
	}
	return t
}

// judge says what is wrong: a test that passes on a kubelet, fails on an AI node and
// is not ruled out, a test that is ruled out and passes all the same, and one that is
// ruled out and not there.
func (t table) judge(ruledOut map[string]contract.Feature) error {
	var wrong []string
	missing := maps.Clone(ruledOut)
	for _, l := range t {
		delete(missing, l.name)
		switch {
		case l.kubelet && l.ruledOut == "" && (!l.node || !l.hook):
			wrong = append(wrong, fmt.Sprintf("a kubelet passes it, an AI node does not: %s (%s)", l.name, l.where))
		case l.ruledOut != "" && l.node && l.hook:
			wrong = append(wrong, fmt.Sprintf("ruled out by %s, and passes: %s: take it off the list", l.ruledOut, l.name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		wrong = append(wrong, fmt.Sprintf("ruled out, and no test that runs here: %s", name))
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

func (t table) summary() string {
	var kubelet, node, hook, out int
	for _, l := range t {
		kubelet += one(l.kubelet)
		node += one(l.node)
		hook += one(l.hook)
		out += one(l.ruledOut != "")
	}
	return fmt.Sprintf("Of %d tests pass: %d on a kubelet, %d on an AI node, %d on an AI node behind the webhook. %d are ruled out by the contract.\n",
		len(t), kubelet, node, hook, out)
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

// markdown is the rest of it.
func (t table) markdown() string {
	var out strings.Builder
	out.WriteString(t.summary())
	out.WriteString("\n## What does not pass everywhere\n\n")
	t.rows(&out, func(l line) bool { return !l.everywhere() })
	out.WriteString("\n## What passes everywhere\n\n")
	for _, l := range t {
		if l.everywhere() {
			fmt.Fprintf(&out, "- %s\n", escape(l.name))
		}
	}
	return out.String()
}

func (t table) rows(out *strings.Builder, want func(line) bool) {
	out.WriteString("| test | kubelet | AI node | with webhook | ruled out by |\n|---|---|---|---|---|\n")
	mark := map[bool]string{true: "passes", false: "**fails**"}
	for _, l := range t {
		if !want(l) {
			continue
		}
		feature := "–"
		if l.ruledOut != "" {
			feature = fmt.Sprintf("[`%s`](../SUPPORT.md)", l.ruledOut)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", escape(l.name), mark[l.kubelet], mark[l.node], mark[l.hook], feature)
	}
}

// escape keeps a test's name from being read as Markdown.
func escape(name string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`).Replace(name)
}
