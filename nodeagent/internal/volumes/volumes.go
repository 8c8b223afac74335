// Package volumes makes the volumes of pods on the machine and takes them away:
// ConfigMaps, Secrets, downward API, projections of those, empty directories in memory
// or on disk, and what claims are bound to: buckets, and by way of room csi the volumes of
// CSI drivers. What is on the machine is the truth: it keeps nothing in memory that a
// restart would lose.
//
// Below its root it keeps
//
//	UID/volumes/NAME                            a volume
//	UID/volume-subpaths/NAME/CONTAINER/INDEX    what a subPath of it points at
//	UID/volume-helpers/NAME                     what its FUSE helper has for itself
//
// and nothing else: others may keep things of their own below UID.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/objects"
)

// Options of a Manager. Root, Objects and Mounter are required.
type Options struct {
	// Root holds one directory per pod UID. It is made if it is not there.
	Root string
	// Objects are the ConfigMaps and Secrets that pods name, asked for anew.
	Objects crispec.Objects
	// Followed are those of running pods, as last heard of.
	Followed Followed
	// Tokens are asked for the tokens of pods' service accounts. May be nil: then no
	// volume with one can be made.
	Tokens Tokens
	// Claims are asked for the claims that pods name. May be nil: then none can be mounted.
	Claims Claims
	// CSI mounts the volumes of CSI drivers. May be nil: then none can be mounted.
	CSI *csi.Manager
	// Drivers are what of the API those need. Required with CSI.
	Drivers csi.Objects
	// Node is the Node as last seen: volumes may be for some nodes only. It must not
	// block. Default: one without labels.
	Node func() *corev1.Node
	// Cache keeps what is read from buckets. May be nil: then nothing is kept.
	Cache Cache
	// FUSEDevice defaults to /dev/fuse.
	FUSEDevice string
	// Boot is this boot of the machine. What was written in another one may be half on
	// disk, and is written anew.
	Boot string
	// Clock defaults to the real one.
	Clock clock.WithTicker
	// Mounter mounts and unmounts tmpfs, and binds subPaths.
	Mounter mount.Interface
	// Allocatable of the node, which limits that are not set count as in the
	// downward API. May be nil.
	Allocatable func() corev1.ResourceList
}

// Followed tells of changes.
type Followed interface {
	crispec.Objects
	// Follow calls changed, which does not block, soon after each change of one of the
	// objects, until ctx is done.
	Follow(ctx context.Context, references []objects.Reference, changed func())
}

// Mounted is the host path of each volume of a pod, by volume name.
type Mounted = map[string]string

// Manager makes and takes away volumes. It is safe for concurrent use by
// different pods; of the calls for one pod only Refresh, Follow and Keep may
// overlap with others.
type Manager struct {
	o Options
	// writing, a *sync.Mutex by pod UID, keeps a Refresh from writing, and a Keep from
	// mounting, where Teardown removes. Each pod has its own: the dead mount of one holds up no other.
	writing sync.Map
	tokens  tokenCache
	figures figures
}

// New returns a Manager, or an error that names every missing option.
func New(o Options) (*Manager, error) {
	var missing []error
	if !filepath.IsAbs(o.Root) {
		missing = append(missing, errors.New("option Root is not an absolute path"))
	}
	if o.Objects == nil {
		missing = append(missing, errors.New("option Objects is missing"))
	}
	if o.Followed == nil {
		missing = append(missing, errors.New("option Followed is missing"))
	}
	if o.Mounter == nil {
		missing = append(missing, errors.New("option Mounter is missing"))
	}
	if o.CSI != nil && o.Drivers == nil {
		missing = append(missing, errors.New("option Drivers is missing"))
	}
	if o.Boot == "" {
		missing = append(missing, errors.New("option Boot is missing"))
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("make the volume manager: %w", errors.Join(missing...))
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of volumes: %w", err)
	}
	// The kernel lists mounts by their real paths.
	root, err := filepath.EvalSymlinks(o.Root)
	if err != nil {
		return nil, fmt.Errorf("resolve the directory of volumes: %w", err)
	}
	o.Root = root
	if o.Allocatable == nil {
		o.Allocatable = func() corev1.ResourceList { return nil }
	}
	if o.Node == nil {
		o.Node = func() *corev1.Node { return &corev1.Node{} }
	}
	if o.FUSEDevice == "" {
		o.FUSEDevice = "/dev/fuse"
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return &Manager{o: o, tokens: tokenCache{clock: o.Clock}}, nil
}

const (
	volumesDir  = "volumes"
	subPathsDir = "volume-subpaths"
	helpersDir  = "volume-helpers"
)

// lock keeps others from writing into the pod's volumes until unlock is called.
func (m *Manager) lock(uid types.UID) (unlock func()) {
	of, _ := m.writing.LoadOrStore(uid, &sync.Mutex{})
	mutex := of.(*sync.Mutex) // nothing else is stored
	mutex.Lock()
	return mutex.Unlock
}

func (m *Manager) volume(uid types.UID, name string) string {
	return filepath.Join(m.o.Root, string(uid), volumesDir, name)
}

// Setup makes every volume of the pod and returns their host paths. It is
// idempotent: what is there stays with the data in it, and is not looked up
// again, so that a container starts again while the API does not answer. Its error
// tells of every volume that can't be made, in the kubelet's words.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) (Mounted, error) {
	if err := checkUID(pod.UID); err != nil {
		return nil, err
	}
	mounted := Mounted{}
	from := lookup(pod, m.o.Objects)
	var failed []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		path, err := m.make(ctx, pod, v, from)
		if err != nil {
			failed = append(failed, setUpFailed(v, err))
			continue
		}
		mounted[v.Name] = path
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	return mounted, nil
}

// make makes one volume and returns its path.
func (m *Manager) make(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, from *crispec.Lookup) (path string, err error) {
	if v.Name == "" || v.Name != filepath.Base(v.Name) || v.Name == "." || v.Name == ".." {
		return "", errors.New("its name is not one of a directory")
	}
	path = m.volume(pod.UID, v.Name)
	switch {
	case v.EmptyDir != nil:
		return path, m.emptyDir(pod, v.EmptyDir, path)
	case v.VolumeSource == corev1.VolumeSource{}:
		return path, m.emptyDir(pod, &corev1.EmptyDirVolumeSource{}, path)
	case isContent(v):
		return path, m.content(ctx, pod, v, path, from)
	case isClaim(v):
		return m.claim(ctx, pod, v)
	default:
		return "", fmt.Errorf("volumes of kind %s are not supported on AI nodes", kind(v))
	}
}

// PodUIDs are the pods that have something on the machine, also if half torn down; those
// that are known also beside an error.
func (m *Manager) PodUIDs() ([]types.UID, error) {
	uids, err := m.ownPodUIDs()
	if err != nil || m.o.CSI == nil {
		return uids, err
	}
	others, err := m.o.CSI.PodUIDs()
	for _, uid := range others {
		if !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return uids, err
}

func (m *Manager) ownPodUIDs() ([]types.UID, error) {
	entries, err := os.ReadDir(m.o.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the pods that have volumes: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		for _, part := range []string{volumesDir, subPathsDir, helpersDir} {
			if _, err := os.Lstat(filepath.Join(m.o.Root, e.Name(), part)); err == nil {
				uids = append(uids, types.UID(e.Name()))
				break
			}
		}
	}
	return uids, nil
}

// checkUID keeps what is no UID out of paths.
func checkUID(uid types.UID) error {
	if s := string(uid); s == "" || s == "." || s == ".." || s != filepath.Base(s) {
		return fmt.Errorf("%q is not the UID of a pod", uid)
	}
	return nil
}
