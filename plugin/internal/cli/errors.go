package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// errFindings ends a command that did what it should and found something.
var errFindings = errors.New("there are findings")

const findingsExitCode = 2

// report prints an error: what, why, and the command to type next. It returns the
// exit code.
func report(ctx context.Context, w io.Writer, err error) int {
	if errors.Is(err, errFindings) {
		return findingsExitCode // the findings have been shown
	}
	if code := endedBy(err); code != 0 {
		fmt.Fprintln(w, strings.TrimSpace(text(err)))
		return code
	}
	interrupted := false
	for _, e := range split(err) {
		next := remedy.Lines(e)
		if ctx.Err() != nil && len(next) == 0 {
			interrupted = true // whatever it stood at: every verb is gone on with
			continue
		}
		if len(next) == 0 {
			next = nextOf(e)
		}
		_ = printers.WriteEscaped(w, strings.Join(append([]string{text(e)}, next...), "\n")) // nobody is left to tell
		fmt.Fprintln(w)
	}
	if interrupted {
		fmt.Fprintln(w, "error: interrupted; what was not done is gone on with by typing the same command")
	}
	return cmdutil.DefaultErrorExitCode
}

// nextOf is what to type after an error that no room has tied to a remedy.
func nextOf(err error) []string {
	var remote *url.Error
	switch {
	case isDenial(err):
		return []string{fmt.Sprintf("ClusterRole %q grants what looking takes, %q what changing takes.", preflight.Viewer.Name, preflight.Binder.Name)}
	case apierrors.IsUnauthorized(err):
		return []string{"See who you are there:  kubectl auth whoami"}
	case errors.As(err, &remote):
		return []string{"See which cluster your kubeconfig names:  kubectl config view --minify"}
	}
	return nil
}

// isDenial tells a right that is missing from a write that is refused to everybody:
// an API server answers both with Forbidden.
func isDenial(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}

// split takes joined errors apart: each node has its own. Only the outermost level
// is such a list.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

// text is the error in kubectl's wording. What was being done stays in front of an
// API server's answer.
func text(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		switch s := status.Status(); {
		case s.Reason == metav1.StatusReasonUnauthorized:
			return fmt.Sprintf("error: You must be logged in to the server (%s)", err)
		case s.Reason != "":
			return fmt.Sprintf("Error from server (%s): %s", s.Reason, err)
		default:
			return fmt.Sprintf("Error from server: %s", err)
		}
	}
	var remote *url.Error
	if errors.As(err, &remote) && !errors.As(err, new(*remedy.Error)) {
		if text, ok := cmdutil.StandardErrorMessage(remote); ok {
			return text
		}
	}
	text := err.Error()
	if !strings.HasPrefix(text, "error: ") {
		text = "error: " + text
	}
	return text
}

// usageError is a wrong command line, with the way to the right one.
func usageError(verb, format string, args ...any) error {
	return fmt.Errorf(format+"\nSee 'kubectl ainode %s --help' for help and examples", append(args, verb)...)
}

// flagError is pflag's, with the way to the right one.
func flagError(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w\nSee '%s --help' for help and examples", err, cmd.CommandPath())
}

// noArgs refuses what stands behind a verb that takes nothing.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(cmd.Name(), "%s takes no arguments, %q was given", cmd.Name(), args[0])
}

// noVerb refuses a verb that is not there.
func noVerb(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return remedy.New("See all", "kubectl ainode --help", "there is no verb %q; there is %s", args[0], strings.Join(near, ", "))
	}
	return remedy.New("See all", "kubectl ainode --help", "there is no verb %q", args[0])
}
