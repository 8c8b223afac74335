package yardstick

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// kubernetes is the version that the suite is of (e2e/conformance/go.mod).
const kubernetes = "v1.37.2"

// module is where the suite is, from the checkout's root.
const module = "e2e/conformance"

// Which of the suite's tests: those for nodes, without those that want the machine
// for themselves, take half an hour, or need what is off in Kubernetes by default.
const (
	focus = `\[NodeConformance\]`
	skip  = `\[Serial\]|\[Slow\]|\[Disruptive\]|\[Flaky\]|\[Feature:|\[FeatureGate:|\[Alpha\]|\[Beta\]`
)

// processes is how many tests run at once. They mostly wait.
const processes = "8"

// build makes the suite's program, the one that runs it in parallel, and what its
// images hold.
func (y *Yardstick) build(ctx context.Context) error {
	if err := os.MkdirAll(y.program(""), 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"test", "-c", "-o", y.program("node.test"), "."},
		{"build", "-o", y.program("") + "/", "github.com/onsi/ginkgo/v2/ginkgo",
			"k8s.io/kubernetes/test/images/agnhost", "k8s.io/kubernetes/test/images/nonewprivs"},
	} {
		args = append([]string{args[0], "-trimpath", "-ldflags", "-s -w"}, args[1:]...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = filepath.Join(y.Root, module)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// runSuite runs the tests against one column's node. That some fail is no error.
func (y *Yardstick) runSuite(ctx context.Context, c column) error {
	dir := y.reports(c)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	told, err := os.Create(filepath.Join(dir, "output.txt"))
	if err != nil {
		return err
	}
	defer told.Close()
	cmd := exec.CommandContext(ctx, y.program("ginkgo"),
		"--procs="+processes, "--no-color", "--timeout=90m", "--focus="+focus, "--skip="+skip,
		"--json-report=report.json", "--output-dir="+dir, y.program("node.test"), "--",
		"--provider=skeleton", "--kubeconfig="+y.story.Kubeconfig(),
		"--non-blocking-taints="+c.nonBlocking)
	cmd.Stdout, cmd.Stderr = told, told
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() { defer close(watched); y.watch(told.Name(), ended) }()
	err = cmd.Run()
	close(ended)
	<-watched
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return fmt.Errorf("run the suite: %w", err)
	}
	if _, err := os.Stat(y.report(c)); err != nil {
		return fmt.Errorf("the suite broke off; what it said is in %s", told.Name())
	}
	return nil
}

// watch tells every half a minute how far the suite is, until it has ended.
func (y *Yardstick) watch(file string, ended <-chan struct{}) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			if said, err := os.ReadFile(file); err == nil {
				fmt.Fprintf(y.Out, "   %s\n", progressOf(string(said)))
			}
		}
	}
}

var announced = regexp.MustCompile(`Will run (\d+) of`)

// progressOf reads in what ginkgo has said so far how many tests have ended: it puts a
// dot for each, and a word behind it where one did not pass.
func progressOf(said string) string {
	total := announced.FindStringSubmatch(said)
	if total == nil {
		return "the suite gets ready"
	}
	return fmt.Sprintf("%d of %s tests, %d failed", strings.Count(said, "•"), total[1], strings.Count(said, "• ["))
}
