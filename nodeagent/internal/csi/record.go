package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	utilstrings "k8s.io/utils/strings"

	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// recordFile is the kubelet's (pkg/volume/csi, volDataFileName), in its place and with
// its fields: there are drivers that read it.
const recordFile = "vol_data.json"

// progress is how far a call has come that is to be undone.
type progress string

const (
	wanted progress = ""      // not called, or it came to nothing
	tried  progress = "tried" // called; nobody knows what came of it
	done   progress = "done"
)

// yes is true: a kubelet reads strings alone.
const yes = "true"

// record is what is remembered of a volume: that a pod wants it, or that it is staged.
// It is written before the driver is called, so that what an agent began that was
// killed is undone by the next.
type record struct {
	// The kubelet's fields. AttachmentID is set where the volume has to be attached.
	Name         string `json:"specVolID,omitempty"`
	Handle       string `json:"volumeHandle"`
	Driver       string `json:"driverName"`
	Node         string `json:"nodeName"`
	AttachmentID string `json:"attachmentID,omitempty"`
	Mode         string `json:"volumeLifecycleMode,omitempty"`
	// Ours, which a kubelet skips. What was done in another boot than Boot is undone.
	Claim     string   `json:"claimName,omitempty"`
	Progress  progress `json:"progress,omitempty"`
	Boot      string   `json:"bootID,omitempty"`
	Republish string   `json:"republish,omitempty"` // yes: see CSIDriver.spec.requiresRepublish
	ReadOnly  string   `json:"readOnly,omitempty"`  // yes: no container of the pod is to write
	Abandoned string   `json:"abandoned,omitempty"` // yes: its pod is gone, Run undoes it

	dir string // where the record lies
	// damaged is why it can't be read; nothing else is known of it then.
	damaged error
}

// ours reports whether an agent has made the record, of this machine's earlier names too:
// a kubelet's have none of our fields.
func (r *record) ours() bool { return r.Claim != "" || r.Boot != "" }

// key names the volume of a driver, as a node's status does
// (pkg/volume/csi, GetVolumeName).
func (r *record) key() string { return r.Driver + "^" + r.Handle }

// is reports whether the call has been done in this boot.
func (r *record) is(boot string) bool { return r.Progress == done && r.Boot == boot }

func (r *record) path() string { return filepath.Join(r.dir, recordFile) }

// note writes the record with another progress.
func (r *record) note(p progress, boot string) error {
	r.Progress, r.Boot = p, boot
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("remember volume %q: %w", r.Handle, err)
	}
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return fmt.Errorf("remember volume %q: %w", r.Handle, err)
	}
	if err := statefile.Write(r.path(), data, 0o600); err != nil {
		return fmt.Errorf("remember volume %q: %w", r.Handle, err)
	}
	return nil
}

// forget removes the record, with the mount point below it: nothing is mounted there
// any more, or it stays.
func (r *record) forget(mountPoint string) error {
	if err := os.Remove(mountPoint); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mount point: %w", err)
	}
	if err := statefile.Remove(r.path()); err != nil {
		return fmt.Errorf("forget volume %q: %w", r.Handle, err)
	}
	if err := os.Remove(r.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget volume %q: %w", r.Handle, err)
	}
	return nil
}

// read is the record in dir, nil if there is none.
func read(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // somebody's file is no volume
		return nil, nil // that there is none is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known of a volume: %w", err)
	}
	r := &record{dir: dir}
	err = json.Unmarshal(data, r)
	if err == nil && (r.Handle == "" || r.Driver == "") {
		err = errors.New("it names no volume")
	}
	if err != nil {
		return nil, &damagedError{fmt.Errorf("read what is known of a volume in %q: %w", dir, err)}
	}
	return r, nil
}

// damagedError is a record that is there and tells nothing.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// readOver is read, of a record that is to be written: one that is damaged is as good as
// none once nothing is mounted at the mount point any more.
func (m *Manager) readOver(dir, mountPoint string) (*record, error) {
	r, err := read(dir)
	var damaged *damagedError
	if !errors.As(err, &damaged) {
		return r, err
	}
	mounted, listErr := m.mounted(mountPoint)
	if listErr != nil || !mounted {
		return nil, listErr
	}
	return nil, fmt.Errorf("%w; of which driver is mounted at %s nobody knows: unmount it by hand", err, mountPoint)
}

// mounted reports whether something is mounted at exactly this path.
func (m *Manager) mounted(path string) (bool, error) {
	mounts, err := m.o.Mounter.List()
	if err != nil {
		return false, fmt.Errorf("list mounts: %w", err)
	}
	return slices.ContainsFunc(mounts, func(p mount.MountPoint) bool { return p.Path == path }), nil
}

// podDir is the kubelet's folder of a pod's CSI volumes.
func (m *Manager) podDir(uid types.UID) string {
	return filepath.Join(m.podsDir(), string(uid), "volumes", "kubernetes.io~csi")
}

func (m *Manager) podsDir() string { return filepath.Join(m.o.Dir, "pods") }

func (m *Manager) volumeDir(uid types.UID, name string) string {
	return filepath.Join(m.podDir(uid), utilstrings.EscapeQualifiedName(name))
}

func (m *Manager) stagingDir(driver, handle string) string {
	return filepath.Join(m.stagingsDir(), driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))))
}

func (m *Manager) stagingsDir() string {
	return filepath.Join(m.o.Dir, "plugins", "kubernetes.io", "csi")
}

// target is where the volume is published for its pod.
func (r *record) target() string { return filepath.Join(r.dir, "mount") }

// staging is where the volume is staged for all its pods.
func (r *record) staging() string { return filepath.Join(r.dir, "globalmount") }

// ofPods are the records of one pod, or, for the empty UID, of all; also damaged ones.
func (m *Manager) ofPods(uid types.UID) ([]*record, error) {
	pattern := "*"
	if uid != "" {
		pattern = string(uid)
	}
	return m.records(filepath.Join(m.podsDir(), pattern, "volumes", "kubernetes.io~csi", "*"))
}

// staged are the records of volumes that are or may be staged.
func (m *Manager) staged() ([]*record, error) {
	return m.records(filepath.Join(m.stagingsDir(), "*", "*"))
}

func (m *Manager) records(pattern string) ([]*record, error) {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("list the volumes of CSI drivers: %w", err)
	}
	var all []*record
	for _, dir := range dirs {
		r, err := read(dir)
		switch {
		case err != nil:
			all = append(all, &record{dir: dir, damaged: err})
		case r != nil && (r.Node == m.o.Node || r.ours()): // a kubelet's on the same machine are its own
			all = append(all, r)
		}
	}
	return all, nil
}
