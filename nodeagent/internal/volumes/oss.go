package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/fuse"
	"github.com/ainode/ainode/nodeagent/internal/ossfs"
)

// mostSaid is how much of a helper's last words is logged, in bytes.
const mostSaid = 2048

func (m *Manager) fuseMount(uid types.UID, name string) fuse.Mount {
	return fuse.Mount{Target: m.volume(uid, name), Dir: filepath.Join(m.o.Root, string(uid), helpersDir, name)}
}

// live reports whether the bucket of a claim is mounted and its helper lives.
func (m *Manager) live(uid types.UID, name string) (bool, error) {
	defer m.lock(uid)()
	return m.fuseMount(uid, name).Live()
}

// mountBucket mounts a bucket, unless it is mounted and its helper lives. Each pod has
// a mount and a helper of its own: one that ends harms no other pod, and what is mounted
// goes with the pod. Whether it would have to be attached first
// (CSIDriver.spec.attachRequired) is not asked: the vendor's driver says so and means
// nothing by it on a machine that mounts by itself.
func (m *Manager) mountBucket(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, volume *corev1.PersistentVolume) error {
	defer m.lock(pod.UID)()
	at := m.fuseMount(pod.UID, v.Name)
	if live, err := at.Live(); err != nil || live {
		return err
	}
	bucket, err := m.bucket(ctx, volume)
	if err != nil {
		return fmt.Errorf("persistentvolume %q: %w", volume.Name, err)
	}
	helper, program, err := m.helper()
	if err != nil {
		return err
	}
	of := ossfs.Pod{ReadOnly: !mayWrite(pod, v, volume), FSGroup: fsGroup(pod)}
	place := ossfs.Place{Mountpoint: at.Beside(), PasswordFile: at.PasswordFile()}
	if printed, err := exec.CommandContext(ctx, program, "--version").Output(); err != nil || ossfs.Spools(helper, string(printed)) {
		place.Spool = at.Spool()
	}
	// A helper that has lost its mount may live, and writes where it caches.
	if err := at.Clear(ctx); err != nil {
		return err
	}
	if place.Cache = m.takeCache(ctx, pod.UID, v.Name, bucket, helper, of); place.Cache != "" {
		place.EnsureFree = m.o.Cache.EnsureFree()
	}
	command := bucket.Command(helper, of, place)
	if err := os.MkdirAll(filepath.Dir(at.Target), 0o700); err != nil {
		return fmt.Errorf("make the directory of volumes: %w", err)
	}
	err = at.Make(ctx, fuse.Command{Program: program, Args: command.Args, Password: command.Password})
	var failed *fuse.FailedError
	if !errors.As(err, &failed) {
		return err
	}
	m.giveCache(ctx, pod.UID, v.Name, true) // nobody has read or written by it
	said := bucket.Redact(failed.Said)
	klog.FromContext(ctx).Info("A FUSE helper could not mount a volume", "persistentVolume", volume.Name,
		"helper", helper, "late", failed.Late, "said", said[max(0, len(said)-mostSaid):])
	if failed.Late {
		said += " CURLE_OPERATION_TIMEDOUT" // the cause if it has told none
	}
	return fmt.Errorf("persistentvolume %q: %s", volume.Name, bucket.Cause(said))
}

// bucket reads the volume, with the Secret that it names.
func (m *Manager) bucket(ctx context.Context, volume *corev1.PersistentVolume) (ossfs.Bucket, error) {
	var keys map[string][]byte
	if ref := volume.Spec.CSI.NodePublishSecretRef; ref != nil {
		secret, err := (&crispec.Lookup{Objects: m.o.Objects, Namespace: ref.Namespace}).Secret(ctx, ref.Name, false)
		if err != nil {
			return ossfs.Bucket{}, fmt.Errorf("nodePublishSecretRef: %w", err)
		}
		// Not nil also where it is empty: the attributes are not what it stands for.
		keys = map[string][]byte{}
		for name, value := range secret.Data {
			keys[name] = value
		}
	}
	return ossfs.Read(volume.Spec.CSI, volume.Spec.MountOptions, keys)
}

// helper is the first that is installed, with its path.
func (m *Manager) helper() (ossfs.Helper, string, error) {
	if _, err := os.Stat(m.o.FUSEDevice); err != nil {
		return "", "", errors.New(ossfs.NoFUSE)
	}
	for _, helper := range ossfs.Helpers {
		if program, err := exec.LookPath(string(helper)); err == nil {
			return helper, program, nil
		}
	}
	return "", "", errors.New(ossfs.NoHelper)
}
