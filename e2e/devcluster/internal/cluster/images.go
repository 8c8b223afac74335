package cluster

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ainode/ainode/e2e/devcluster/internal/containerd"
	"github.com/ainode/ainode/e2e/devcluster/internal/image"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/registry"
)

// LoadImage brings an image to where `to` says: node, machine (all of them),
// machine-N, registry, or all.
func LoadImage(l layout.Layout, ref string, img v1.Image, to string, out io.Writer) error {
	state, err := readState(l)
	if err != nil {
		return err
	}
	tag, err := image.Parse(ref)
	if err != nil {
		return err
	}
	rooms, push, err := destinations(state, to)
	if err != nil {
		return err
	}
	if len(rooms) > 0 {
		if err := importInto(l, tag, img, rooms, out); err != nil {
			return err
		}
	}
	if !push {
		return nil
	}
	password, err := registry.Password(l)
	if err != nil {
		return err
	}
	host := registry.Host(state.Plan)
	if tag.RegistryStr() != host {
		// Other names are pushed under the registry's own.
		if tag, err = image.Parse(host + "/" + tag.RepositoryStr() + ":" + tag.TagStr()); err != nil {
			return err
		}
	}
	if err := image.Push(tag, img, registry.Username, password); err != nil {
		return err
	}
	fmt.Fprintln(out, tag.Name())
	return nil
}

func importInto(l layout.Layout, tag name.Tag, img v1.Image, rooms []string, out io.Writer) error {
	file, err := os.CreateTemp(l.Path("tmp"), "image-*.tar")
	if err != nil {
		return fmt.Errorf("writing the image archive: %w", err)
	}
	_ = file.Close()
	defer os.Remove(file.Name())
	if err := image.Save(file.Name(), tag, img); err != nil {
		return err
	}
	for _, room := range rooms {
		if err := containerd.Import(l, room, file.Name()); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%s on %s\n", tag.Name(), strings.Join(rooms, ", "))
	return nil
}

func destinations(state State, to string) (rooms []string, push bool, err error) {
	machines := state.rooms()[1:]
	switch to {
	case "all":
		return state.rooms(), true, nil
	case "node":
		return []string{layout.NodeName}, false, nil
	case "machine", "machines":
		if len(machines) == 0 {
			return nil, false, fmt.Errorf("--to %s: this cluster has no machines", to)
		}
		return machines, false, nil
	case "registry":
		return nil, true, nil
	}
	for _, room := range state.rooms() {
		if room == to {
			return []string{room}, false, nil
		}
	}
	return nil, false, fmt.Errorf("--to %s: choose node, machine, registry, all or one of %s", to, strings.Join(state.rooms(), ", "))
}
