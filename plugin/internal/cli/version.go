package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"
	"k8s.io/kubectl/pkg/util/templates"
)

func newVersion(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this plugin",
		Example: templates.Examples(`
			# Print the version
			kubectl ainode version

			# The versions of the agents
			kubectl ainode list -o custom-columns=NAME:.metadata.name,VERSION:.status.agentVersion`),
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(env.Out, "kubectl-ainode %s %s/%s %s\n", env.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return nil
		},
	}
}

// ownVersion is what the build says: releases and the Makefile set the version of
// Kubernetes' components with ours behind it; go install leaves the module's or the
// revision.
func ownVersion() string {
	if _, own, ok := strings.Cut(version.Get().GitVersion, "-ainode."); ok && own != "" {
		return own
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
