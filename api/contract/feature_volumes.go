package contract

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	sharedMemory = "/dev/shm"
	inMemory     = "counts towards the memory limit of the containers that write to it"
)

// hostPath is row host-path of SUPPORT.md: the host's /dev/shm becomes a memory emptyDir,
// every other path is refused, wherever it is mounted.
//
//	host-path: spec.volumes[0].hostPath: path "/etc" of the machine is not given to pods
func hostPath(r *review) {
	for i := range r.pod.Spec.Volumes {
		v := &r.pod.Spec.Volumes[i]
		if v.Source != "hostPath" || r.gone[i] {
			continue
		}
		field := fmt.Sprintf("spec.volumes[%d].hostPath", i)
		if v.HostPath.ofSharedMemory() {
			at := fmt.Sprintf("/spec/volumes/%d/", i)
			r.find(Finding{
				Field: field, Action: Normalise, Old: v.Raw,
				Detail: "an emptyDir in memory instead of the machine's " + sharedMemory + "; it " + inMemory,
			}, remove(at+"hostPath"), set(at+"emptyDir", memory(nil)))
			continue
		}
		r.find(Finding{
			Field: field, Action: Deny, Old: v.Raw,
			Detail: fmt.Sprintf("%s of the machine is not given to pods", v.HostPath),
			Remedy: "use a PersistentVolumeClaim, a ConfigMap or the image; for shared memory an emptyDir with medium: Memory",
		})
	}
}

func (h HostPath) String() string {
	if h.Type == "" {
		return fmt.Sprintf("path %q", cut(h.Path, 120))
	}
	return fmt.Sprintf("path %q (type %s)", cut(h.Path, 120), cut(h.Type, 40))
}

func (h HostPath) ofSharedMemory() bool {
	p := path.Clean(h.Path)
	return (p == sharedMemory || strings.HasPrefix(p, sharedMemory+"/")) &&
		slices.Contains([]corev1.HostPathType{corev1.HostPathUnset, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate}, corev1.HostPathType(h.Type))
}

// emptyDir is row empty-dir of SUPPORT.md.
//
//	empty-dir: spec.volumes[1] was removed: /work must exist in the image and be writable
func emptyDir(r *review) {
	r.hugePages()
	if r.Policy.Profile == ProfileAgent && r.override == "" {
		return
	}
	for i := range r.pod.Spec.Volumes {
		v := &r.pod.Spec.Volumes[i]
		onDisk := v.Source == "emptyDir" && v.EmptyDir.Medium == "" || v.Source == ""
		if !onDisk || r.gone[i] {
			continue
		}
		field := fmt.Sprintf("spec.volumes[%d].emptyDir", i)
		users, where := r.users(i)
		if r.override == Warn || r.override == Deny {
			r.find(Finding{
				Field: field, Action: r.override, Old: v.Raw,
				Detail: "emptyDirs on disk are not promised on AI nodes",
				Remedy: "set medium: Memory, or use a PersistentVolumeClaim",
			})
			continue
		}
		if users > 1 || r.Namespace.Restricted || r.mountedAt(i, sharedMemory, true) {
			r.find(Finding{
				Field: field, Action: Normalise, Old: v.Raw,
				Detail: "kept in memory; it " + inMemory,
				Remedy: "set medium: Memory with a sizeLimit, or use a PersistentVolumeClaim",
			}, set(fmt.Sprintf("/spec/volumes/%d/emptyDir", i), memory(v.EmptyDir.SizeLimit)))
			continue
		}
		detail := "no container mounts it"
		if where != "" {
			detail = fmt.Sprintf("%s is the container's own layer, it must exist in the image and be writable", cut(where, 60))
		}
		r.gone[i] = r.find(Finding{
			Field: field, Action: Strip, Old: v.Raw, Detail: detail,
			Remedy: "set medium: Memory, or use a PersistentVolumeClaim",
		}, r.takeVolume(i)...)
	}
}

func (r *review) hugePages() {
	for i := range r.pod.Spec.Volumes {
		medium := r.pod.Spec.Volumes[i].EmptyDir.Medium
		if medium == "" || medium == string(corev1.StorageMediumMemory) {
			continue
		}
		r.find(Finding{
			Field: fmt.Sprintf("spec.volumes[%d].emptyDir.medium", i), Action: Deny, Old: raw(medium),
			Detail: fmt.Sprintf("medium %q is not there on AI nodes", cut(medium, 40)), Remedy: "use medium: Memory",
		})
	}
}

// users counts the containers that mount volume i, and says where the first does.
func (r *review) users(i int) (n int, where string) {
	var last *Container
	r.mounts(i, func(c *Container, m int) {
		if c != last {
			n, last = n+1, c
		}
		if where == "" {
			where = c.VolumeMounts[m].MountPath
		}
	})
	return n, where
}

// memory is an emptyDir in memory.
func memory(sizeLimit json.RawMessage) map[string]any {
	source := map[string]any{"medium": string(corev1.StorageMediumMemory)}
	if len(sizeLimit) > 0 && string(sizeLimit) != "null" {
		source["sizeLimit"] = sizeLimit
	}
	return source
}

// supportedVolumes and supportedProjections are what AI nodes can mount;
// the rows before this one judge emptyDir, hostPath and tokens.
var (
	supportedVolumes     = []string{"", "configMap", "secret", "persistentVolumeClaim", "projected", "downwardAPI", "emptyDir", "hostPath"}
	supportedProjections = []string{"", "configMap", "secret", "downwardAPI", "serviceAccountToken"}
)

// volumeTypes is row volume-types of SUPPORT.md: every other type is refused, also those
// that are newer than this program.
//
//	volume-types: spec.volumes[2].nfs: volume type nfs is not supported
func volumeTypes(r *review) {
	const remedy = "use a PersistentVolumeClaim, or take the data into the image"
	for i := range r.pod.Spec.Volumes {
		v := &r.pod.Spec.Volumes[i]
		if !slices.Contains(supportedVolumes, v.Source) {
			r.find(Finding{
				Field: fmt.Sprintf("spec.volumes[%d].%s", i, cut(v.Source, 60)), Action: Deny,
				Detail: fmt.Sprintf("volume type %s is not supported", cut(v.Source, 60)), Remedy: remedy,
			})
		}
		for s, source := range v.Projected {
			if !slices.Contains(supportedProjections, source) {
				r.find(Finding{
					Field: fmt.Sprintf("spec.volumes[%d].projected.sources[%d].%s", i, s, cut(source, 60)), Action: Deny,
					Detail: fmt.Sprintf("projected source %s is not supported", cut(source, 60)),
					Remedy: "project ConfigMaps, Secrets and the downward API only",
				})
			}
		}
	}
	r.pod.containers(func(c *Container) {
		if len(c.VolumeDevices) > 0 {
			r.find(Finding{
				Field: c.field + ".volumeDevices", Action: Deny,
				Detail: "raw block devices are not supported", Remedy: "use a claim with volumeMode: Filesystem",
			})
		}
	})
}
