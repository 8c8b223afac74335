package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	kubectlrun "k8s.io/kubectl/pkg/cmd/run"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
	utilexec "k8s.io/utils/exec"

	"github.com/ainode/ainode/api/contract"
)

// runOptions are kubectl run's own, and what an AI node needs of a pod.
type runOptions struct {
	env *Env
	// pod makes the pod, and does the attaching, as kubectl run does.
	pod    *kubectlrun.RunOptions
	name   string
	gpus   int64
	limits map[string]string
	node   string
	dryRun dryRun
}

// pullsWithin is how long the first container may take to run: images with CUDA in them
// have ten gigabytes and more.
const pullsWithin = 15 * time.Minute

func newRun(env *Env) *cobra.Command {
	o := &runOptions{env: env, pod: kubectlrun.NewRunOptions(env.IOStreams), gpus: 1}
	cmd := &cobra.Command{
		Use:   "run NAME --image IMAGE",
		Short: "Run an image on an AI node, with cards",
		Long: templates.LongDesc(`
			Run an image on an AI node, with cards.

			It is kubectl run with a pod that AI nodes take: labelled for the webhook, which adds what such pods need, and with
			limits. --dry-run=client -o yaml prints the pod to start a manifest from.

			As with kubectl run, a Ctrl-C that no terminal (-t) passes on to the container ends the command alone, also with --rm:
			delete the pod then.`),
		Example: templates.Examples(`
			# See the card that a pod gets, and leave nothing behind
			kubectl ainode run try --image nvidia/cuda:13.0.1-base-ubuntu24.04 --restart=Never -i --rm -- nvidia-smi

			# A shell with two cards on that node
			kubectl ainode run shell --image pytorch/pytorch --gpus 2 --node ai-h200-01 -it --rm

			# A slice, memory and processors
			kubectl ainode run small --image my/job --limits nvidia.com/mig-1g.10gb=1,memory=16Gi,cpu=4`),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(cmd, args); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.Int64Var(&o.gpus, "gpus", o.gpus, "How many whole cards the container gets; 0 is none. With a limit on slices, none unless it is given.")
	flags.StringToStringVar(&o.limits, "limits", nil, "More limits of the container: memory=16Gi,cpu=4.")
	flags.StringVar(&o.node, "node", o.node, "The AI node that it has to run on.")
	o.dryRun.addFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("node", completeNodes(env))
	o.addKubectlFlags(cmd)
	return cmd
}

// addKubectlFlags are those of kubectl run's flags that mean something on an AI node,
// with what they mean there. Complete reads most of them by their names.
func (o *runOptions) addKubectlFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.pod.Image, "image", "", "The container's image.")
	_ = cmd.MarkFlagRequired("image")
	flags.String("image-pull-policy", "", "When to pull the image: Always, IfNotPresent or Never.")
	flags.StringArray("env", nil, "An environment variable, NAME=VALUE; again for more.")
	flags.StringP("labels", "l", "", "More labels of the pod: app=llm,team=x. Without, run=NAME.")
	flags.StringArray("annotations", nil, "An annotation of the pod, NAME=VALUE; again for more.")
	flags.StringVar(&o.pod.Port, "port", "", "A port at which the container listens.")
	flags.String("restart", string(corev1.RestartPolicyAlways), "What follows when the container ends: Always, OnFailure or Never.")
	flags.BoolVar(&o.pod.Command, "command", false, "What stands behind -- replaces the image's entrypoint, instead of its arguments.")
	flags.BoolVarP(&o.pod.Interactive, "stdin", "i", false, "Pass stdin on to the container, and show what it says.")
	flags.BoolVarP(&o.pod.TTY, "tty", "t", false, "Give the container a terminal (with -i).")
	flags.BoolVar(&o.pod.Attach, "attach", false, "Show what the container says until it ends; with --restart=Never its exit code is this command's.")
	flags.BoolVar(&o.pod.LeaveStdinOpen, "leave-stdin-open", false, "Do not end the container's stdin with the first that was attached.")
	flags.BoolVar(&o.pod.Remove, "rm", false, "Delete the pod when it has ended (with -i or --attach).")
	flags.BoolVarP(&o.pod.Quiet, "quiet", "q", false, "Say nothing but what the container says.")
	flags.StringVar(&o.pod.DetachKeys, "detach-keys", "ctrl-p,ctrl-q", "The keys that leave a container running.")
	cmdutil.AddPodRunningTimeoutFlag(cmd, pullsWithin)
	cmdutil.AddApplyAnnotationFlags(cmd) // which kubectl run asks for
	_ = flags.MarkHidden(cmdutil.ApplyAnnotationsFlag)
	o.pod.PrintFlags.AddFlags(cmd)
}

func (o *runOptions) complete(cmd *cobra.Command, args []string) error {
	if err := o.dryRun.validate("run"); err != nil {
		return err
	}
	if err := o.pod.Complete(o.factory(), cmd); err != nil {
		return err
	}
	if len(args) == 0 || o.pod.ArgsLenAtDash == 0 {
		return usageError("run", "the pod needs a name")
	}
	o.name = args[0]
	if len(o.pod.Labels) == 0 {
		o.pod.Labels = map[string]string{"run": o.name}
	}
	o.pod.Labels[contract.ScheduleLabel] = "true"
	overrides, err := o.overrides(cmd.Flags().Changed("gpus"))
	if err != nil {
		return err
	}
	o.pod.Overrides, o.pod.OverrideType = overrides, cmdutil.OverrideTypeStrategic
	return nil
}

func (o *runOptions) factory() cmdutil.Factory {
	return cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(o.env.Clusters.Getter())) // which makes clients of one API version, as attach wants them
}

// overrides is the strategic merge patch to kubectl run's pod.
func (o *runOptions) overrides(gpusGiven bool) (string, error) {
	limits := maps.Clone(o.limits)
	if limits == nil {
		limits = map[string]string{}
	}
	cards := false
	for name, amount := range limits {
		if _, err := resource.ParseQuantity(amount); err != nil {
			return "", usageError("run", "--limits: %s=%s is no amount: write memory=16Gi, cpu=4 or cpu=500m", name, amount)
		}
		cards = cards || contract.IsGPUResource(corev1.ResourceName(name))
	}
	switch {
	case o.gpus < 0:
		return "", usageError("run", "--gpus is not negative")
	case gpusGiven && limits[string(contract.GPUResource)] != "":
		return "", usageError("run", "--gpus and --limits both say how many cards")
	case o.gpus > 0 && (gpusGiven || !cards):
		limits[string(contract.GPUResource)] = fmt.Sprint(o.gpus)
	}
	spec := map[string]any{"containers": []any{map[string]any{"name": o.name, "resources": map[string]any{"limits": limits}}}}
	if o.node != "" {
		spec["nodeSelector"] = map[string]string{corev1.LabelHostname: o.node}
	}
	raw, err := json.Marshal(map[string]any{"apiVersion": "v1", "spec": spec})
	if err != nil {
		return "", fmt.Errorf("encode the pod's limits: %w", err)
	}
	return string(raw), nil
}

// validate is kubectl run's own.
func (o *runOptions) validate(args []string) error {
	if err := o.pod.Validate(args); err != nil {
		return usageError("run", "%v", err)
	}
	return nil
}

func (o *runOptions) run(cmd *cobra.Command, args []string) error {
	if o.pod.Attach && !o.pod.Quiet {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		if target, err := o.env.Clusters.Target(); err == nil {
			o.tell(ctx, target.Core)
		}
	}
	// What it says of other verbs is said of kubectl's, by the parent's name.
	kubectl, as := &cobra.Command{Use: "kubectl"}, &cobra.Command{Use: "run"}
	kubectl.AddCommand(as)
	as.Flags().AddFlagSet(cmd.Flags())
	return o.pod.Run(o.factory(), as, args)
}

// tell passes the pod's events on until its container has been started: a pod that waits
// for a card, or for its image, says so there. Without the right to read events nothing is
// told.
func (o *runOptions) tell(ctx context.Context, core kubernetes.Interface) {
	events := core.CoreV1().Events(o.pod.Namespace)
	options := metav1.ListOptions{FieldSelector: fields.Set{"involvedObject.kind": "Pod", "involvedObject.name": o.name}.String(), Limit: 1}
	before, err := events.List(ctx, options) // those of an earlier pod of this name are not shown
	if err != nil {
		return
	}
	options.Limit, options.ResourceVersion = 0, before.ResourceVersion
	watch, err := events.Watch(ctx, options)
	if err != nil {
		return
	}
	go func() {
		defer watch.Stop()
		progress := o.env.progress()
		for news := range watch.ResultChan() {
			event, ok := news.Object.(*corev1.Event)
			if !ok || event.Reason == "Started" {
				return
			}
			progress.Line(event.Reason, "%s", event.Message)
		}
	}()
}

// endedBy is the exit code of the container that a command has waited for, 0 if it was
// none.
func endedBy(err error) int {
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) {
		return 0
	}
	return exit.Code
}
