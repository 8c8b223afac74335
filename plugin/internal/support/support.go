// Package support shows the support table and what it did to a pod, for people at a
// terminal. What it says is api/contract's.
package support

import (
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/output"
)

// width is how many columns text takes at most.
const width = 80

// columns are what the features and modes take of a line of 80.
const columns = 38

// Table is the support table, a line a feature.
func Table() *metav1.Table {
	rows := make([][]string, len(contract.Table))
	for i, row := range contract.Table {
		rows[i] = []string{string(row.Feature), string(row.Default), brief(gist(row.Text), 80-columns)}
	}
	return output.Table([]output.Column{{Name: "Feature"}, {Name: "Default"}, {Name: "What happens"}}, rows)
}

// gist is the beginning of a row's text that can stand alone.
func gist(text string) string {
	end := len(text)
	for _, stop := range []string{". ", "; ", ", so", ", or ", ", which "} {
		if i := strings.Index(text, stop); i > 0 {
			end = min(end, i)
		}
	}
	return strings.TrimSuffix(text[:end], ".")
}

// brief is text in at most n columns, cut between words.
func brief(text string, n int) string {
	lines := wrap(text, n)
	if len(lines) == 1 {
		return text
	}
	return strings.TrimRight(wrap(text, n-1)[0], ",:;(") + "…"
}

// Describe writes all that a row says.
func Describe(out io.Writer, row contract.Row) error {
	var b strings.Builder
	for _, line := range wrap(row.Text, width) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintln(&b)
	field := func(name, format string, args ...any) {
		const column = 20
		for i, line := range wrap(fmt.Sprintf(format, args...), width-column) {
			if i == 0 {
				fmt.Fprintf(&b, "%-*s%s\n", column, name+":", line)
			} else {
				fmt.Fprintf(&b, "%*s%s\n", column, "", line)
			}
		}
	}
	field("Feature", "%s", row.Feature)
	field("Profile "+string(contract.ProfileAliclouddb), "%s (%s)", row.Default, row.Default.Meaning())
	field("Profile "+string(contract.ProfileAgent), "%s (%s)", row.Agent, row.Agent.Meaning())
	field("Vendor's page", "%s", row.Vendor)
	if row.NotYet != "" {
		field("Not yet", "%s", row.NotYet)
	}
	if row.Fix != "" {
		field("Fix", "%s", row.Fix)
	}
	if len(row.Overrides) > 0 {
		modes := make([]string, len(row.Overrides))
		for i, o := range row.Overrides {
			modes[i] = string(o)
		}
		field("Overrides", "%s (chart value admission.features.%s, check --override %s=%s)",
			strings.Join(modes, ", "), row.Feature, row.Feature, modes[0])
	} else {
		field("Overrides", "none")
	}
	if len(row.Claims) > 0 {
		field("Fields", "%s", strings.Join(row.Claims, ", "))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// wrap breaks text into lines of at most n columns, at spaces.
func wrap(text string, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > n:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
