package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

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
func report(w io.Writer, err error) int {
	if errors.Is(err, errFindings) {
		return findingsExitCode // the findings have been shown
	}
	for _, e := range split(err) {
		lines := append([]string{text(e)}, remedy.Lines(e)...)
		if apierrors.IsForbidden(e) && len(lines) == 1 {
			lines = append(lines, fmt.Sprintf("ClusterRole %q grants what this takes.", preflight.BinderRole))
		}
		_ = printers.WriteEscaped(w, strings.Join(lines, "\n")) // nobody is left to tell
		fmt.Fprintln(w)
	}
	return cmdutil.DefaultErrorExitCode
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
