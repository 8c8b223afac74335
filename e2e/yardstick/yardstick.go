package yardstick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/e2e/story"
)

// Yardstick is one measuring, on a cluster of its own.
type Yardstick struct {
	// Root is the checkout, Dir where the cluster, the programs and the reports live.
	Root, Dir string
	// Columns are the letters of the columns to measure, in this order. Of the others
	// the table takes what an earlier run has left in Dir; without any it is just that.
	Columns string
	// Out gets the progress.
	Out io.Writer

	story *story.Story
}

// column is one way to run the suite.
type column struct {
	letter, title string
	prepare       func(*Yardstick, context.Context) error
	// nonBlocking is the taint whose nodes the suite passes over.
	nonBlocking string

	results results
	when    time.Time
}

var columns = []column{
	{letter: "a", title: "a kubelet", prepare: (*Yardstick).toKubelet, nonBlocking: contract.TaintKey},
	{letter: "b", title: "an AI node", prepare: (*Yardstick).toAINode, nonBlocking: elsewhere},
	{letter: "c", title: "an AI node behind the webhook", prepare: (*Yardstick).toWebhook, nonBlocking: elsewhere},
}

// Run measures and writes the table. A test that a kubelet passes and an AI node does
// not is an error, unless the list of what is ruled out has it; so is one that the
// list has and an AI node passes.
func (y *Yardstick) Run(ctx context.Context) error {
	if y.Columns == "" {
		return y.writeTable()
	}
	y.story = &story.Story{Root: y.Root, Dir: y.path("cluster"), Out: y.Out}
	steps := []story.Step{
		{Says: "take away what a run has left that broke off", Do: y.story.Down},
		{Says: "build the programs", Do: y.story.Build},
		{Says: "build the suite and what its images hold (the first time a quarter of an hour)", Do: y.build},
		{Says: "a real cluster with one ordinary node, and a GPU machine outside it", Do: y.story.ClusterUp},
		{Says: "the suite's images, made without a registry", Do: y.loadImages},
		{Says: "the webhook's image", Do: y.story.LoadNodeImages},
		{Says: "install the chart", Do: y.story.InstallChart},
		{Says: "add an AI node: the machine joins the pool", Do: y.story.AddAndJoin},
		{Says: "start the agent on the machine", Do: y.story.StartAgent},
		{Says: "import the cluster", Do: y.story.Import},
		{Says: "bind the node to it, with an address for each pod", Do: y.story.BindWithRange},
	}
	for letter := range strings.SplitSeq(y.Columns, "") {
		i := slices.IndexFunc(columns, func(c column) bool { return c.letter == letter })
		if i < 0 {
			return fmt.Errorf("there is no column %q: a, b or c", letter)
		}
		c := columns[i]
		steps = append(steps, story.Step{Says: "column " + c.letter + ": " + c.title, Do: func(ctx context.Context) error { return y.measure(ctx, c) }})
	}
	steps = append(steps, story.Step{Says: "take the cluster away", Do: y.story.Down})
	if err := y.story.Tell(ctx, steps...); err != nil {
		return fmt.Errorf("%w\nWhat is up stays up; logs are in %[2]s/log. Take it away with: go run ./e2e/cmd/story down --dir %[2]s", err, y.story.Dir)
	}
	return y.writeTable()
}

// writeTable puts the columns side by side, as they were measured last.
func (y *Yardstick) writeTable() error {
	var found []column
	for _, c := range columns {
		var err error
		c.results, c.when, err = readReport(y.report(c))
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(y.Out, "\nno table yet: column %s has not been measured\n", c.letter)
			return nil
		}
		if err != nil {
			return err
		}
		found = append(found, c)
	}
	t := compare(found[0].results, found[1].results, found[2].results, ruledOut)
	file := filepath.Join(y.Root, "docs", "conformance.md")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(head(found)+t.markdown()), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	fmt.Fprintf(y.Out, "\n%swritten to %s\n", t.summary(), file)
	return t.judge(ruledOut)
}

// measure runs one column and prints what failed.
func (y *Yardstick) measure(ctx context.Context, c column) error {
	if err := c.prepare(y, ctx); err != nil {
		return err
	}
	if err := y.runSuite(ctx, c); err != nil {
		return err
	}
	found, _, err := readReport(y.report(c))
	if err != nil {
		return err
	}
	passed := 0
	for _, name := range found.names() {
		if r := found[name]; r.passed {
			passed++
		} else {
			fmt.Fprintf(y.Out, "   failed: %s\n           %s: %s\n", name, r.where, r.why)
		}
	}
	fmt.Fprintf(y.Out, "   %d of %d passed\n", passed, len(found))
	return nil
}

func (r results) names() []string { return slices.Sorted(maps.Keys(r)) }

func (y *Yardstick) report(c column) string     { return filepath.Join(y.reports(c), "report.json") }
func (y *Yardstick) reports(c column) string    { return y.path("report-" + c.letter) }
func (y *Yardstick) path(name string) string    { return filepath.Join(y.Dir, name) }
func (y *Yardstick) program(name string) string { return filepath.Join(y.Dir, "bin", name) }
