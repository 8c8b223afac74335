package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/check"
	"github.com/ainode/ainode/plugin/internal/output"
)

type checkOptions struct {
	env         *Env
	files       []string
	recursive   bool
	names       []string
	overrides   []string
	profile     string
	format      string
	all         bool
	showPatched bool
	server      bool
	judges      bool // a flag says how to judge
	settings    check.Settings
}

func newCheck(env *Env) *cobra.Command {
	o := &checkOptions{env: env, profile: string(contract.ProfileAliclouddb)}
	cmd := &cobra.Command{
		Use:   "check -f FILE|DIR|- … | TYPE/NAME …",
		Short: "Judge pods and workloads before they are applied",
		Long: templates.LongDesc(`
			Judge pods and workloads by what AI nodes support, before they are applied or as they are in a cluster.

			Files are judged without any cluster, by the same table and rules as the webhook's. A pod that is no AI node's is
			left alone, here as there. "error" is what a pod is refused for, "warning" what is taken away, turned into something
			else or will not work; --all shows also what is added to every pod and what the pod asks for by its labels.

			Exit code 2 says that there are findings, 1 that something could not be read.`),
		Example: templates.Examples(`
			# Judge a file
			kubectl ainode check -f pod.yaml

			# Judge a chart's output as the namespace takes it, which opts its GPU pods in
			helm template . | kubectl ainode check -f - --namespace-opted-in

			# See the pod as it would be stored
			kubectl ainode check -f pod.yaml --show-patched

			# Judge what is in the cluster; ask the cluster's own webhook about a folder
			kubectl ainode check deployment/llm
			kubectl ainode check -f manifests -R --server`),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(cmd, args); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&o.files, "filename", "f", o.files, "Files or folders with manifests, - for standard input.")
	flags.BoolVarP(&o.recursive, "recursive", "R", o.recursive, "Go through the folders in the folders of -f too.")
	flags.StringVar(&o.profile, "profile", o.profile,
		fmt.Sprintf("The profile that the cluster's webhook has: %q or %q.", contract.ProfileAliclouddb, contract.ProfileAgent))
	flags.StringArrayVar(&o.overrides, "override", o.overrides, "FEATURE=MODE that the cluster's webhook has beside its profile. Can be repeated.")
	flags.BoolVar(&o.settings.Namespace.OptedIn, "namespace-opted-in", false, fmt.Sprintf("Judge as in a namespace with the label %s=true. Of objects in a cluster it is read there.", contract.ScheduleLabel))
	flags.BoolVar(&o.settings.Namespace.Restricted, "namespace-restricted", false, "Judge as in a namespace that enforces Pod Security restricted. Of objects in a cluster it is read there.")
	flags.BoolVar(&o.all, "all", o.all, "Show also what is added to every pod and what a pod asks for; these are no findings.")
	flags.BoolVar(&o.showPatched, "show-patched", o.showPatched, "Print the pods as they would be stored, and the findings on standard error.")
	flags.BoolVar(&o.server, "server", o.server, "Ask the cluster's own webhook by a dry run rather than judge here.")
	flags.StringVarP(&o.format, "output", "o", o.format, "Output format. One of: (json, yaml).")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{string(contract.ProfileAliclouddb), string(contract.ProfileAgent)}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("override", cobra.FixedCompletions(overridable(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// overridable are all that --override can be.
func overridable() []string {
	var all []string
	for _, row := range contract.Table {
		for _, mode := range row.Overrides {
			all = append(all, fmt.Sprintf("%s=%s", row.Feature, mode))
		}
	}
	return all
}

func (o *checkOptions) complete(cmd *cobra.Command, args []string) error {
	o.names = args
	for _, flag := range []string{"profile", "override", "namespace-opted-in", "namespace-restricted"} {
		o.judges = o.judges || cmd.Flags().Changed(flag)
	}
	if f := cmd.Flags().Lookup("namespace"); f != nil && f.Changed {
		o.settings.InNamespace = f.Value.String()
	}
	o.settings.Policy = contract.Policy{Profile: contract.Profile(o.profile), Overrides: map[contract.Feature]contract.Action{}}
	for _, override := range o.overrides {
		feature, mode, ok := strings.Cut(override, "=")
		if !ok {
			return usageError("check", "--override is FEATURE=MODE, not %q", override)
		}
		if _, err := lookup(feature); err != nil {
			return err
		}
		o.settings.Policy.Overrides[contract.Feature(feature)] = contract.Action(mode)
	}
	return nil
}

func (o *checkOptions) validate() error {
	switch {
	case len(o.files) == 0 && len(o.names) == 0:
		return usageError("check", "-f FILE or TYPE/NAME is needed")
	case len(o.files) > 0 && len(o.names) > 0:
		return usageError("check", "-f and TYPE/NAME do not go together")
	case o.recursive && len(o.files) == 0:
		return usageError("check", "--recursive goes with -f")
	case o.server && o.judges:
		return usageError("check", "--server asks the cluster, which has a profile, overrides and namespaces of its own")
	case o.format != "" && o.showPatched:
		return usageError("check", "--show-patched prints pods: leave -o out")
	}
	if err := o.settings.Policy.Validate(); err != nil {
		return usageError("check", "%w", err)
	}
	return output.ValidateFormat(o.format)
}

func (o *checkOptions) run(ctx context.Context) error {
	objects, errs := o.read()
	judge, err := o.judge(ctx)
	if err != nil {
		return err
	}
	var results []check.Result
	for _, object := range objects {
		if !object.HasPod() {
			continue
		}
		result, err := judge(object)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		results = append(results, result)
	}
	var findings []check.Finding
	for _, r := range results {
		findings = append(findings, r.Findings...)
	}
	if !o.server {
		objects = append(objects, o.guards(ctx, results)...)
		guarded, err := check.Guarded(objects, results, o.settings)
		findings, errs = append(findings, guarded...), append(errs, err)
	}
	err = errors.Join(errs...)
	if err := o.print(results, findings, err != nil); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if check.Count(findings, check.Info) < len(findings) {
		return errFindings
	}
	return nil
}

func (o *checkOptions) read() ([]check.Object, []error) {
	if len(o.files) > 0 {
		return check.Read(o.files, o.recursive, o.env.In)
	}
	getter := o.env.Clusters.Getter()
	namespace, _, err := getter.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, []error{fmt.Errorf("find the namespace: %w", err)}
	}
	objects, err := check.Live(getter, namespace, o.names)
	if err != nil {
		return objects, []error{err}
	}
	return objects, nil
}

// judge is how an object is judged: by the cluster's webhook, or here with what its
// namespace says.
func (o *checkOptions) judge(ctx context.Context) (func(check.Object) (check.Result, error), error) {
	switch {
	case o.server:
		getter := o.env.Clusters.Getter()
		cfg, err := getter.ToRESTConfig()
		if err != nil {
			return nil, fmt.Errorf("find the target cluster: %w", err)
		}
		namespace, _, err := getter.ToRawKubeConfigLoader().Namespace()
		if err != nil {
			return nil, fmt.Errorf("find the namespace: %w", err)
		}
		server, err := check.NewServer(cfg, namespace)
		if err != nil {
			return nil, err
		}
		return func(object check.Object) (check.Result, error) { return server.Ask(ctx, object) }, nil
	case len(o.files) > 0:
		return func(object check.Object) (check.Result, error) { return check.Judge(object, o.settings) }, nil
	}
	target, err := o.env.Clusters.Target()
	if err != nil {
		return nil, err
	}
	facts := map[string]contract.Namespace{}
	return func(object check.Object) (check.Result, error) {
		fact, known := facts[object.Namespace]
		if !known {
			if fact, err = check.Facts(ctx, target.Core, object.Namespace); err != nil {
				o.env.progress().Warn("", "%v; judged by the flags alone", err)
			}
			facts[object.Namespace] = fact
		}
		settings := o.settings
		settings.Namespace.OptedIn = settings.Namespace.OptedIn || fact.OptedIn
		settings.Namespace.Restricted = settings.Namespace.Restricted || fact.Restricted
		return check.Judge(object, settings)
	}, nil
}

// guards are the network policies and budgets of the namespaces of live objects.
func (o *checkOptions) guards(ctx context.Context, results []check.Result) []check.Object {
	var namespaces []string
	for _, r := range results {
		if r.Object.Live() && !r.Untouched && !slices.Contains(namespaces, r.Object.Namespace) {
			namespaces = append(namespaces, r.Object.Namespace)
		}
	}
	if len(namespaces) == 0 {
		return nil
	}
	target, err := o.env.Clusters.Target()
	if err != nil {
		return nil // judge has said so
	}
	var all []check.Object
	for _, namespace := range namespaces {
		some, err := check.Guards(ctx, target.Core, namespace)
		if err != nil {
			o.env.progress().Warn("", "%v; judged without", err)
		}
		all = append(all, some...)
	}
	return all
}

func (o *checkOptions) print(results []check.Result, findings []check.Finding, failed bool) error {
	shown := findings
	if !o.all {
		shown = slices.DeleteFunc(slices.Clone(findings), func(f check.Finding) bool { return f.Level == check.Info })
	}
	if o.format != "" {
		return output.Document(o.env.Out, o.format, check.NewList(shown, results))
	}
	out := o.env.Out
	if o.showPatched {
		out = o.env.ErrOut
		if err := o.printPatched(results); err != nil {
			return err
		}
	}
	rows := make([][]string, len(shown))
	for i, f := range shown {
		rows[i] = []string{f.Where(), string(f.Level), string(f.Feature), f.Message}
	}
	if err := output.Aligned(out, rows); err != nil {
		return err
	}
	o.sum(results, findings, failed)
	return nil
}

func (o *checkOptions) printPatched(results []check.Result) error {
	first := true
	for _, r := range results {
		if r.Patched == nil {
			continue
		}
		text, err := yaml.JSONToYAML(r.Patched)
		if err != nil {
			return fmt.Errorf("print %s: %w", r.Object.Ref, err)
		}
		if !first {
			fmt.Fprintln(o.env.Out, "---")
		}
		first = false
		if _, err := o.env.Out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// sum tells on standard error what was left alone, and how many findings there are.
func (o *checkOptions) sum(results []check.Result, findings []check.Finding, failed bool) {
	progress := o.env.progress()
	untouched := 0
	for _, r := range results {
		if r.Untouched {
			untouched++
			progress.Line(r.Object.Place(), "%s is no AI-node pod: untouched", r.Object.Ref)
		}
	}
	if untouched > 0 {
		progress.Line("To opt in:", "label the pod %s: \"true\" (more: kubectl ainode explain placement)", contract.ScheduleLabel)
	}
	errs, warnings, infos := check.Count(findings, check.Error), check.Count(findings, check.Warning), check.Count(findings, check.Info)
	hidden := ""
	if infos > 0 && !o.all {
		hidden = fmt.Sprintf(" (%s; see them with --all)", many(infos, "addition or routine change", "additions or routine changes"))
	}
	switch {
	case errs+warnings > 0:
		fmt.Fprintf(o.env.ErrOut, "%s: %s, %s (explain: %s)\n",
			many(errs+warnings, "finding", "findings"), many(errs, "error", "errors"), many(warnings, "warning", "warnings"), strings.TrimSpace("kubectl ainode explain "+string(worst(findings))))
	case failed: // "no findings" would be heard as "all is well"
	case len(results) == 0:
		fmt.Fprintln(o.env.ErrOut, "nothing to check: no pod, and nothing that makes pods")
	case untouched < len(results):
		fmt.Fprintf(o.env.ErrOut, "no findings%s\n", hidden)
	}
}

// worst is the feature to read about first.
func worst(findings []check.Finding) contract.Feature {
	for _, level := range []check.Level{check.Error, check.Warning} {
		for _, f := range findings {
			if _, known := contract.Lookup(f.Feature); known && f.Level == level {
				return f.Feature
			}
		}
	}
	return ""
}

func many(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
