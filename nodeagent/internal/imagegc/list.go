package imagegc

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// look lists the images, and the containers that use them.
func (c *Collector) look(ctx context.Context) error {
	began := c.o.Clock.Now()
	images, err := c.o.Runtime.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	containers, err := c.o.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the users of images: %w", err)
	}
	used := map[string]bool{}
	for _, container := range containers { // the dead too: they may be started again
		used[container.ImageId] = true
		used[container.ImageRef] = true
		used[container.GetImage().GetImage()] = true
	}
	delete(used, "")

	c.mu.Lock()
	present := map[string]bool{}
	for _, image := range images {
		present[image.Id] = true
		k := c.known[image.Id]
		if k == nil {
			k = &known{seen: began}
			c.known[image.Id] = k
		}
		k.size, k.pinned = image.Size, image.Pinned
		if k.inUse = uses(used, image); k.inUse {
			k.used = began
		}
	}
	maps.DeleteFunc(c.known, func(id string, _ *known) bool { return !present[id] })
	// The largest first, and always in one order: a Node's status that differs is
	// written.
	slices.SortFunc(images, func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Id, b.Id))
	})
	c.listed = slices.Concat([]*runtimeapi.Image{}, images) // not nil
	c.mu.Unlock()
	c.o.Present(present, began)
	return nil
}

// uses reports whether used holds the image's id or one of its names: older
// runtimes say one, newer ones the other.
func uses(used map[string]bool, image *runtimeapi.Image) bool {
	is := func(name string) bool { return used[name] }
	return used[image.Id] || slices.ContainsFunc(image.RepoTags, is) || slices.ContainsFunc(image.RepoDigests, is)
}

// order are the ids of the images that may be removed, those that have been idle
// for the longest first.
func (c *Collector) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Clock.Now()
	var ids []string
	for id, k := range c.known {
		// A new one may have been pulled for a container that is about to be made.
		if !k.inUse && !k.pinned && now.Sub(k.seen) >= minAge {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		x, y := c.known[a], c.known[b]
		return cmp.Or(x.used.Compare(y.used), x.seen.Compare(y.seen), cmp.Compare(a, b))
	})
	return ids
}

// A Node's status shows so many images, and so many names of each, as a kubelet's.
const (
	mostImages = 50
	mostNames  = 5
)

// Images are the largest images on the machine as a Node's status shows them; nil
// until they are known.
func (c *Collector) Images() []corev1.ContainerImage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listed == nil {
		return nil
	}
	shown := []corev1.ContainerImage{}
	for _, image := range c.listed[:min(len(c.listed), mostImages)] {
		names := slices.Concat(image.RepoDigests, image.RepoTags)
		shown = append(shown, corev1.ContainerImage{
			Names:     names[:min(len(names), mostNames)],
			SizeBytes: int64(image.Size),
		})
	}
	return shown
}
