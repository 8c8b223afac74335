package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/check"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/remedy"
	"github.com/ainode/ainode/plugin/internal/support"
)

type explainOptions struct {
	env     *Env
	feature string
	pod     string
}

func newExplain(env *Env) *cobra.Command {
	o := &explainOptions{env: env}
	return &cobra.Command{
		Use:   "explain [FEATURE | POD/NAME]",
		Short: "Say what AI nodes support and why, or what was changed on a pod",
		Long: templates.LongDesc(`
			Say what AI nodes support and why, or what was changed on a pod.

			Features are those that warnings, refusals and "check" name; without one, all are listed. Of a pod, what admission
			changed when it was made is read from its annotation.`),
		Example: templates.Examples(`
			# List the features
			kubectl ainode explain

			# What is done about a feature, why, and what to write instead
			kubectl ainode explain host-network

			# What was changed on a pod
			kubectl ainode explain pod/llm-0`),
		ValidArgsFunction: cobra.FixedCompletions(features(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
}

func features() []string {
	names := make([]string, len(contract.Table))
	for i, row := range contract.Table {
		names[i] = string(row.Feature)
	}
	return names
}

func (o *explainOptions) complete(args []string) error {
	if len(args) == 2 && isPods(args[0]) { // as kubectl takes it too
		args = []string{args[0] + "/" + args[1]}
	}
	if len(args) > 1 {
		return usageError("explain", "one feature or pod at a time, %d given", len(args))
	}
	if len(args) == 0 {
		return nil
	}
	kind, name, slash := strings.Cut(args[0], "/")
	switch {
	case !slash:
		o.feature = args[0]
	case !isPods(kind) || name == "":
		return usageError("explain", "a feature or pod/NAME is explained, not %q", args[0])
	default:
		o.pod = name
	}
	return nil
}

func isPods(kind string) bool { return slices.Contains([]string{"pod", "pods", "po"}, kind) }

// lookup finds a feature, or names those that may have been meant.
func lookup(feature string) (contract.Row, error) {
	row, ok := contract.Lookup(contract.Feature(feature))
	if ok {
		return row, nil
	}
	hint := ""
	if similar := nodes.Similar(feature, features()); len(similar) > 0 {
		hint = "; there is " + strings.Join(similar, ", ")
	}
	return row, remedy.New("See all", "kubectl ainode explain", "there is no feature %q%s", feature, hint)
}

func (o *explainOptions) run(ctx context.Context) error {
	switch {
	case o.pod != "":
		return o.explainPod(ctx)
	case o.feature != "":
		row, err := lookup(o.feature)
		if err != nil {
			return err
		}
		return support.Describe(o.env.Out, row)
	default:
		return output.NewFlags().PrintTable(o.env.Out, support.Table())
	}
}

func (o *explainOptions) explainPod(ctx context.Context) error {
	target, err := o.env.Clusters.Target()
	if err != nil {
		return err
	}
	namespace, _, err := o.env.Clusters.Getter().ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return fmt.Errorf("find the namespace: %w", err)
	}
	pod, err := target.Core.CoreV1().Pods(namespace).Get(ctx, o.pod, metav1.GetOptions{})
	if err != nil {
		return err
	}
	value, changed := pod.Annotations[contract.AdmissionAnnotation]
	if changed {
		entries, err := contract.ReadAnnotation(value)
		if err != nil {
			return fmt.Errorf("read annotation %q of pod %q: %w", contract.AdmissionAnnotation, o.pod, err)
		}
		return output.NewFlags().PrintTable(o.env.Out, support.Changes(entries))
	}
	facts, err := check.Facts(ctx, target.Core, namespace)
	if err != nil {
		o.env.progress().Warn("", "%v", err)
	}
	why, err := support.Unchanged(pod, facts)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "Admission changed nothing on pod %q: it carries no annotation %s.\n%s\n", o.pod, contract.AdmissionAnnotation, why)
	return nil
}
