package cli

import (
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/ainode/ainode/e2e/devcluster/internal/cluster"
	"github.com/ainode/ainode/e2e/devcluster/internal/image"
)

func (a *app) loadImage() *cobra.Command {
	var tar, to string
	var demo bool
	var add []string
	var spec image.Spec
	cmd := &cobra.Command{
		Use:   "load-image REF (--tar FILE | --demo | --add SRC:DST…)",
		Short: "Make an image from files, or read one, and bring it to the runtimes or the registry",
		Example: `  devcluster load-image --dir DIR localhost/demo:1 --demo
  devcluster load-image --dir DIR example.com/agent:1 --add ./agent:/agent:0755 --entrypoint /agent --to machine
  devcluster load-image --dir DIR demo:1 --demo --to registry    # prints the name to pull it by`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			img, err := makeImage(tar, demo, add, spec)
			if err != nil {
				return err
			}
			return cluster.LoadImage(l, args[0], img, to, os.Stdout)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&tar, "tar", "", "an archive in the format of docker save")
	flags.BoolVar(&demo, "demo", false, "start from busybox with all its commands, and bash")
	flags.StringArrayVar(&add, "add", nil, "SRC:DST[:MODE], a file or a folder; may be repeated")
	flags.StringArrayVar(&spec.Entrypoint, "entrypoint", nil, "one word of the entrypoint; may be repeated")
	flags.StringArrayVar(&spec.Cmd, "cmd", nil, "one word of the default arguments; may be repeated")
	flags.StringArrayVar(&spec.Env, "env", nil, "NAME=VALUE; may be repeated")
	flags.StringVar(&spec.User, "user", "", "user, or user:group")
	flags.StringVar(&spec.WorkDir, "workdir", "", "working directory")
	flags.StringVar(&to, "to", "all", "node, machine (all of them), machine-N, registry, or all")
	return cmd
}

func makeImage(tar string, demo bool, add []string, spec image.Spec) (v1.Image, error) {
	if tar != "" {
		if demo || len(add) > 0 {
			return nil, fmt.Errorf("--tar brings a whole image: leave --demo and --add away")
		}
		return image.Open(tar)
	}
	if !demo && len(add) == 0 {
		return nil, fmt.Errorf("nothing to make an image from: give --tar FILE, --demo or --add SRC:DST")
	}
	if demo {
		base, err := image.Demo()
		if err != nil {
			return nil, err
		}
		spec.Files = base.Files
		if len(spec.Entrypoint) == 0 && len(spec.Cmd) == 0 {
			spec.Cmd = base.Cmd
		}
	}
	for _, text := range add {
		files, err := image.ParseAdd(text)
		if err != nil {
			return nil, err
		}
		spec.Files = append(spec.Files, files...)
	}
	return image.Build(spec)
}
