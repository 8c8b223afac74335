package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// file is one file of a volume.
type file struct {
	data []byte
	mode fs.FileMode
	// owner is the user it belongs to; nil is root.
	owner *int64
}

// defaultMode is the API's (pkg/apis/core/v1/defaults.go).
const defaultMode = 0o644

// isContent reports whether the volume's files come from the API.
func isContent(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
}

// content makes a volume whose files come from the API, unless it is written.
func (m *Manager) content(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, path string, from *crispec.Lookup) error {
	if !m.written(path) {
		if err := m.writeFirst(ctx, pod, v, path, from); err != nil {
			return err
		}
	}
	return nestedMountPoints(pod, v.Name, path)
}

func (m *Manager) writeFirst(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, path string, from *crispec.Lookup) error {
	if v.ConfigMap == nil {
		// As the kubelet does: what may be secret never reaches a disk.
		if _, err := m.tmpfs(path, "mode=0755"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	if err := os.Chmod(path, 0o755); err != nil { // any user of the pod may read
		return fmt.Errorf("open the directory to all users of the pod: %w", err)
	}
	c, err := m.collect(ctx, pod, v, from)
	if err != nil {
		return err
	}
	defer m.lock(pod.UID)()
	return m.swap(path, c.files, fsGroup(pod))
}

// lookup reads what several volumes hold once.
func lookup(pod *corev1.Pod, from crispec.Objects) *crispec.Lookup {
	return &crispec.Lookup{Objects: from, Namespace: pod.Namespace}
}

// collect gathers what the volume is to hold. The collector is there also with an error.
func (m *Manager) collect(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, from *crispec.Lookup) (*collector, error) {
	c := &collector{
		pod: pod, tokens: &m.tokens, tokenSource: m.o.Tokens, lookup: from,
		allocatable: m.o.Allocatable(),
		files:       map[string]file{},
	}
	return c, c.volume(ctx, v)
}

// collector gathers the files of one volume by their paths in it.
type collector struct {
	pod         *corev1.Pod
	lookup      *crispec.Lookup
	tokens      *tokenCache
	tokenSource Tokens
	allocatable corev1.ResourceList
	files       map[string]file
	// renew is when one of them grows old; zero if none does.
	renew time.Time
}

func (c *collector) volume(ctx context.Context, v *corev1.Volume) error {
	switch {
	case v.ConfigMap != nil:
		s := v.ConfigMap
		return c.configMap(ctx, s.Name, s.Items, s.DefaultMode, s.Optional)
	case v.Secret != nil:
		s := v.Secret
		return c.secret(ctx, s.SecretName, s.Items, s.DefaultMode, s.Optional)
	case v.DownwardAPI != nil:
		return c.downward(v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	}
	var failed []error
	for i := range v.Projected.Sources {
		if err := c.projection(ctx, &v.Projected.Sources[i], v.Projected.DefaultMode); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (c *collector) projection(ctx context.Context, s *corev1.VolumeProjection, mode *int32) error {
	switch {
	case s.ConfigMap != nil:
		return c.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, mode, s.ConfigMap.Optional)
	case s.Secret != nil:
		return c.secret(ctx, s.Secret.Name, s.Secret.Items, mode, s.Secret.Optional)
	case s.DownwardAPI != nil:
		return c.downward(s.DownwardAPI.Items, mode)
	case s.ServiceAccountToken != nil:
		return c.token(ctx, s.ServiceAccountToken, mode)
	case s.ClusterTrustBundle != nil:
		return errors.New("projected clusterTrustBundle is not supported on AI nodes")
	default:
		return errors.New("a projected source is of a kind that AI nodes do not know")
	}
}

func (c *collector) configMap(ctx context.Context, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	may := optional != nil && *optional
	object, err := c.lookup.ConfigMap(ctx, name, may)
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for key, text := range object.Data {
		data[key] = []byte(text)
	}
	for key, raw := range object.BinaryData {
		data[key] = raw
	}
	return c.keys("configmap", name, data, items, mode, may)
}

func (c *collector) secret(ctx context.Context, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	may := optional != nil && *optional
	object, err := c.lookup.Secret(ctx, name, may)
	if err != nil {
		return err
	}
	return c.keys("secret", name, object.Data, items, mode, may)
}

// keys takes all keys, or where items are named those, at their paths.
func (c *collector) keys(kind, name string, data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional bool) error {
	if len(items) == 0 {
		for key, raw := range data {
			c.files[key] = file{data: raw, mode: modeOf(nil, mode)}
		}
		return nil
	}
	for _, item := range items {
		raw, ok := data[item.Key]
		if !ok && optional {
			continue
		}
		if !ok {
			return fmt.Errorf("%s %q references non-existent %s key: %s", kind, name, kind, item.Key)
		}
		c.files[item.Path] = file{data: raw, mode: modeOf(item.Mode, mode)}
	}
	return nil
}

func (c *collector) downward(items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = crispec.FieldValue(c.pod, item.FieldRef.FieldPath, crispec.Facts{})
		case item.ResourceFieldRef != nil:
			text, err = crispec.ResourceValue(c.pod, "", item.ResourceFieldRef, c.allocatable)
		default:
			err = errors.New("it names no field")
		}
		if err != nil {
			return fmt.Errorf("downward API file %q: %w", item.Path, err)
		}
		c.files[item.Path] = file{data: []byte(text), mode: modeOf(item.Mode, mode)}
	}
	return nil
}

func modeOf(own, whole *int32) fs.FileMode {
	switch {
	case own != nil:
		return fs.FileMode(*own) & 0o777 // the API allows 0 to 0777
	case whole != nil:
		return fs.FileMode(*whole) & 0o777 // the API allows 0 to 0777
	default:
		return defaultMode
	}
}

// nestedMountPoints makes the directories on which a container mounts other
// volumes below this one: the runtime can't, since this one is read-only to it.
func nestedMountPoints(pod *corev1.Pod, name, path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, below := range nestedBelow(&list[i], name) {
				if err := root.MkdirAll(below, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
					return fmt.Errorf("make mount point %q in it: %w", below, err)
				}
			}
		}
	}
	return nil
}

// nestedBelow are the paths in the named volume at which c mounts other volumes.
func nestedBelow(c *corev1.Container, name string) []string {
	var below []string
	for _, outer := range c.VolumeMounts {
		if outer.Name != name || outer.SubPath != "" || outer.SubPathExpr != "" {
			continue
		}
		for _, inner := range c.VolumeMounts {
			rel, err := filepath.Rel(containerPath(outer.MountPath), containerPath(inner.MountPath))
			if err == nil && rel != "." && filepath.IsLocal(rel) {
				below = append(below, rel)
			}
		}
	}
	return below
}

// kind is the API's name of the volume's kind.
func kind(v *corev1.Volume) string {
	source := reflect.ValueOf(v.VolumeSource)
	for i := range source.NumField() {
		if source.Field(i).Kind() == reflect.Pointer && !source.Field(i).IsNil() {
			name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "unknown"
}
