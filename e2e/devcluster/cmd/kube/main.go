//go:build kube

// Command kube is etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, kubelet and kubectl in one file: linked once, most of their
// code is shared. The name it is called by, or else its first argument, says
// which one runs.
//
// The build tag keeps it out of `go test ./...` and `go vet ./...`, which would
// compile all of Kubernetes once more.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "time/tzdata" // CronJobs with a time zone

	_ "k8s.io/client-go/plugin/pkg/client/auth"           // kubectl's credential plugins
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build_info metric
)

// programs maps a name to the program behind it. Each entry builds its command
// only when it is called: constructing a command registers signal handlers and
// flags that exist once in a process, so building all of them panics.
var programs = map[string]func(args []string) int{
	"etcd": func(args []string) int {
		etcdmain.Main(args)
		return 0
	},
	"kube-apiserver":          runCommand(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": runCommand(func() *cobra.Command { return controllers.NewControllerManagerCommand() }),
	"kube-scheduler":          runCommand(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 runCommand(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":                 runKubectl,
}

func main() {
	name := filepath.Base(os.Args[0])
	if _, ok := programs[name]; !ok && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	run, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "kube: no program %q here; one of: %s\n", name, strings.Join(names(), ", "))
		os.Exit(2)
	}
	os.Exit(run(os.Args))
}

// runCommand defers building a component's command until it is asked for.
func runCommand(build func() *cobra.Command) func([]string) int {
	return func([]string) int { return cli.Run(build()) }
}

func runKubectl(args []string) int {
	// kubectl logs while it builds its command, before flags are parsed.
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints and exits
	}
	return 0
}

func names() []string {
	list := make([]string, 0, len(programs))
	for name := range programs {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}
