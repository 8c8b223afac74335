package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
)

// told is what is read of one finding of check -o json.
type told struct {
	File                           string
	Line                           int
	Level, Feature, Field, Message string
}

// check runs kubectl ainode check and returns what it found, by file, with the exit
// code and what it printed on standard error.
func (c *cluster) check(t *testing.T, args ...string) (found map[string][]told, code int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.Dir, "bin", "kubectl-ainode"), append([]string{"check", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &exit)
		code = exit.ExitCode()
	}
	var list struct{ Items []told }
	require.NoError(t, json.Unmarshal(out, &list), "%s%s", out, errs.String())
	found = map[string][]told{}
	for _, item := range list.Items {
		found[filepath.Base(item.File)] = append(found[filepath.Base(item.File)], item)
	}
	return found, code, errs.String()
}

// testCheckServer: what check --server tells of a folder with every fixture is what
// the webhook said of each, and nothing is stored.
func (o *oracle) testCheckServer(t *testing.T) {
	dir := t.TempDir()
	asked := map[string]sample{}
	for _, s := range o.samples {
		if s.setting.name != "default" || s.namespace != "plain" {
			continue
		}
		if _, unsound := o.unsound[string(s.Feature)+"/"+s.Name]; unsound {
			continue
		}
		text, err := yaml.Marshal(s.pod)
		require.NoError(t, err)
		name := fmt.Sprintf("%s_%s.yaml", s.Feature, s.Name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		asked[name] = s
	}
	require.Greater(t, len(asked), 60)
	found, code, stderr := o.check(t, "-f", dir, "--server")
	require.Equal(t, 2, code, stderr)
	refusals, warnings := 0, 0
	for name, s := range asked {
		var want, got []string
		switch {
		case s.verdict.Denied():
			for _, f := range s.verdict.Findings {
				if f.Action == contract.Deny {
					want = append(want, fmt.Sprintf("error %s %s", f.Feature, f.Field))
				}
			}
			for _, f := range found[name] {
				if f.Level == "error" { // what the API server itself warns of is no matter here
					got = append(got, fmt.Sprintf("%s %s %s", f.Level, f.Feature, f.Field))
				}
			}
			refusals++
		case s.want.err != nil: // the API server's own refusal
			require.Contains(t, fmt.Sprint(found[name]), "server", name)
			continue
		default:
			for _, line := range append(slices.Clone(s.want.warnings), s.verdict.Warnings()...) {
				if !strings.HasPrefix(line, "made ready for AI nodes: ") && !strings.HasPrefix(line, "placement: ") && !strings.Contains(line, " was added: ") {
					want = append(want, line) // additions are shown with --all
				}
			}
			for _, f := range found[name] {
				line := f.Feature + ": " + f.Message
				if f.Feature == "server" {
					line = f.Message
				}
				got = append(got, line)
			}
			warnings += len(got)
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(slices.Compact(want), got); diff != "" && len(want)+len(got) > 0 {
			t.Errorf("%s: check --server tells otherwise than the webhook:\n%s", name, diff)
		}
		for _, f := range found[name] {
			require.Positive(t, f.Line, "%+v", f)
		}
	}
	require.GreaterOrEqual(t, refusals, 10)
	require.GreaterOrEqual(t, warnings, 10)
	left, err := o.kube.CoreV1().Pods("plain").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, left.Items, "check made pods")

	// What is there already is asked about as well.
	found, code, stderr = o.check(t, "deployment/violating", "-n", "life", "--server")
	require.Equal(t, 2, code, stderr)
	require.Len(t, found["violating"], 1)
	require.Equal(t, "host-path", found["violating"][0].Feature)
	t.Logf("%d files: %d refused, %d warnings", len(asked), refusals, warnings)
}

// testCheckOutage: the cluster's webhook can't be asked, and check says so.
func (c *cluster) testCheckOutage(t *testing.T, file string) {
	out, err := c.run(t, "kubectl-ainode", "check", "-f", file, "--server")
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), out)
	require.Equal(t, 1, exit.ExitCode(), "not asked is neither good nor bad: %s", out)
	require.Contains(t, out, "pods.if-unreachable-check-deployment-ainode-webhook-in-"+system)
	_, err = c.run(t, "kubectl-ainode", "check", "-f", file)
	require.NoError(t, err, "without --server no cluster is needed")
}
