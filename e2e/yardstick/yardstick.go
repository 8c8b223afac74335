package yardstick

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ainode/ainode/e2e/story"
)

// Yardstick is one measuring, on a cluster of its own.
type Yardstick struct {
	// Root is the checkout, Dir where the cluster, the programs and the reports live.
	Root, Dir string
	// Columns are the letters of the columns to measure, in this order. The table is
	// written only when all were.
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
}

var columns = []column{
	{"a", "a kubelet", (*Yardstick).toKubelet, taintKey(ownTaint)},
	{"b", "an AI node", (*Yardstick).toAINode, elsewhere},
	{"c", "an AI node behind the webhook, profile agent", (*Yardstick).toWebhook, elsewhere},
}

func taintKey(taint string) string {
	key, _, _ := strings.Cut(taint, "=")
	return key
}

// Run measures and writes the table. A test that a kubelet passes and an AI node does
// not is an error, unless the list of what is ruled out has it; so is one that the
// list has and an AI node passes.
func (y *Yardstick) Run(ctx context.Context) error {
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
	measured := map[string]results{}
	for letter := range strings.SplitSeq(y.Columns, "") {
		i := slices.IndexFunc(columns, func(c column) bool { return c.letter == letter })
		if i < 0 {
			return fmt.Errorf("there is no column %q: a, b or c", letter)
		}
		c := columns[i]
		steps = append(steps, story.Step{Says: "column " + c.letter + ": " + c.title, Do: func(ctx context.Context) error {
			found, err := y.measure(ctx, c)
			measured[c.letter] = found
			return err
		}})
	}
	steps = append(steps, story.Step{Says: "take the cluster away", Do: y.story.Down})
	if err := y.story.Tell(ctx, steps...); err != nil {
		return fmt.Errorf("%w\nWhat is up stays up; logs are in %[2]s/log. Take it away with: go run ./e2e/cmd/story down --dir %[2]s", err, y.story.Dir)
	}
	if len(measured) < len(columns) {
		return nil
	}
	t := compare(measured["a"], measured["b"], measured["c"])
	file := filepath.Join(y.Root, "docs", "conformance.md")
	if err := os.WriteFile(file, []byte(t.markdown()), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	fmt.Fprintf(y.Out, "\n%swritten to %s\n", t.summary(), file)
	return t.judge()
}

// measure runs one column and prints what failed.
func (y *Yardstick) measure(ctx context.Context, c column) (results, error) {
	if err := c.prepare(y, ctx); err != nil {
		return nil, err
	}
	found, err := y.runSuite(ctx, c)
	if err != nil {
		return nil, err
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
	return found, nil
}

func (r results) names() []string {
	var names []string
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (y *Yardstick) path(name string) string    { return filepath.Join(y.Dir, name) }
func (y *Yardstick) program(name string) string { return filepath.Join(y.Dir, "bin", name) }
