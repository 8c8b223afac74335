// Package csi mounts PersistentVolumes by the CSI drivers of this machine, as a kubelet
// does (pkg/volume/csi): it stages a volume once, publishes it for each pod, and undoes
// both, the staging when the last pod is gone.
//
// Its folder is laid out as a kubelet's, since drivers count on that:
//
//	plugins_registry                                           where drivers register
//	plugins/kubernetes.io/csi/DRIVER/SHA256/globalmount        a staged volume
//	pods/UID/volumes/kubernetes.io~csi/VOLUME/mount            a pod's
//
// with a vol_data.json beside the mount, which is all that is remembered: which calls
// have been made, and which pods want the volume.
package csi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"
)

// Objects are what of the API a volume may need, asked for one by one in the node's
// name.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
	Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Options of a Manager. All without a stated default are required.
type Options struct {
	// Dir is the folder that drivers take for the kubelet's, mostly /var/lib/kubelet.
	Dir string
	// Node is the node's name: a volume in Dir that is another's is left alone.
	Node string
	// Boot is this boot of the machine: what was mounted in another one is not.
	Boot    string
	Drivers *Drivers
	// Mounter lists what is mounted.
	Mounter mount.Interface
	// Clock defaults to the real one.
	Clock clock.WithTicker
	// Within is how long a driver may take for one call, default 2 minutes as on a kubelet.
	Within time.Duration
}

// Manager mounts and unmounts. It needs no API but in Mount, is safe for concurrent
// use, and a driver that hangs holds up nothing but the volumes of its own that it is
// asked for.
type Manager struct {
	o     Options
	locks locks
	// swept tells Run that a volume may be staged for nobody.
	swept chan struct{}
	// changed tells that other volumes are in use.
	changed chan struct{}

	mu     sync.Mutex
	trials map[string]trial // what Run undoes, by folder
	told   map[string]bool  // damaged records that were told of, by folder
}

// New returns a Manager, or an error that names every missing option.
func New(o Options) (*Manager, error) {
	var missing []error
	for name, ok := range map[string]bool{
		"Dir": filepath.IsAbs(o.Dir), "Node": o.Node != "", "Boot": o.Boot != "", "Drivers": o.Drivers != nil, "Mounter": o.Mounter != nil,
	} {
		if !ok {
			missing = append(missing, fmt.Errorf("option %s is missing", name))
		}
	}
	if len(missing) > 0 {
		slices.SortFunc(missing, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		return nil, fmt.Errorf("make the manager of CSI volumes: %w", errors.Join(missing...))
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil { // drivers that are not root's register in it
		return nil, fmt.Errorf("make the folder of CSI volumes: %w", err)
	}
	// The kernel lists mounts by their real paths.
	dir, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of CSI volumes: %w", err)
	}
	o.Dir = dir
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Within == 0 {
		o.Within = answerWithin
	}
	return &Manager{o: o, swept: make(chan struct{}, 1), changed: make(chan struct{}, 1), trials: map[string]trial{}, told: map[string]bool{}}, nil
}

// Drivers are the registered ones.
func (m *Manager) Drivers() *Drivers { return m.o.Drivers }

// driver is the registered driver of this name.
func (m *Manager) driver(name string) (driver, error) {
	d, err := m.o.Drivers.get(name)
	d.within = m.o.Within
	return d, err
}

// PodUIDs are the pods that have something of a volume on the machine.
func (m *Manager) PodUIDs() ([]types.UID, error) {
	records, err := m.ofPods("")
	var uids []types.UID
	for _, r := range records {
		if r.damaged != nil || r.Abandoned == yes {
			continue // Run tells of it, or undoes it
		}
		uid := types.UID(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(r.dir)))))
		if !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return uids, err
}

// Published is where a pod's volume is.
type Published struct {
	Path string
	// Again: the driver wants it to be published again and again.
	Again bool
	// ReadOnly: no container is to write.
	ReadOnly bool
}

// Published is where the pod's claim is published, if it is. It asks nobody.
func (m *Manager) Published(uid types.UID, claim string) (p Published, ok bool, err error) {
	r, err := m.published(uid, claim)
	if r == nil {
		return Published{}, false, err
	}
	return Published{Path: r.target(), Again: r.Republish == yes, ReadOnly: r.ReadOnly == yes}, true, nil
}

// published is the record of the pod's claim if it is published, else nil.
func (m *Manager) published(uid types.UID, claim string) (*record, error) {
	records, err := m.ofPods(uid)
	for _, r := range records {
		if r.Claim == claim && r.is(m.o.Boot) && r.Node == m.o.Node && r.Abandoned != yes {
			return r, nil
		}
	}
	return nil, err
}

// InUse are the volumes that must not be detached from this machine, in the form of a
// node's status: those that pods want, and those that are staged.
func (m *Manager) InUse() ([]corev1.UniqueVolumeName, error) {
	var names []corev1.UniqueVolumeName
	for _, list := range []func() ([]*record, error){func() ([]*record, error) { return m.ofPods("") }, m.staged} {
		records, err := list()
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if name := uniqueName(r.key()); r.AttachmentID != "" && r.Node == m.o.Node && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// uniqueName is pkg/volume/util, GetUniqueVolumeName, of a CSI volume.
func uniqueName(key string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + key)
}

// Changed has a value when InUse is to be told anew. It is for one reader.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
