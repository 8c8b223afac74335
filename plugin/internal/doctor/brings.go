package doctor

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// brought is what a node may read because of pods that are on it, by kind: NAMESPACE/NAME
// each. The node authorizer lets it read what a pod's spec mentions, be the pod started or
// not.
type brought map[string][]string

// broughtKinds are its kinds, the gravest first.
var broughtKinds = []string{"Secret", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"}

// everybodys is the ConfigMap that a service account's token comes with: every namespace
// has the same, and it tells nothing.
const everybodys = "kube-root-ca.crt"

// add adds what a pod of namespace brings. A claim brings its volume too, and the Secrets
// that this names (csi.nodePublishSecretRef). That one is not looked up: some volumes carry
// the keys of a bucket themselves, and who only looks must not need to read those.
func (b brought) add(namespace string, spec *corev1.PodSpec) {
	note := func(kind, name string) {
		if name = namespace + "/" + name; !strings.HasSuffix(name, "/") && !slices.Contains(b[kind], name) {
			b[kind] = append(b[kind], name)
		}
	}
	secret := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			note("Secret", ref.Name)
		}
	}
	configMap := func(name string) {
		if name != everybodys {
			note("ConfigMap", name)
		}
	}
	token := spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken
	for i := range spec.ImagePullSecrets {
		secret(&spec.ImagePullSecrets[i])
	}
	for _, v := range spec.Volumes {
		for _, ref := range mountSecrets(&v.VolumeSource) {
			secret(ref)
		}
		if v.ConfigMap != nil {
			configMap(v.ConfigMap.Name)
		}
		if v.PersistentVolumeClaim != nil {
			note("PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				secret(&source.Secret.LocalObjectReference)
			}
			if source.ConfigMap != nil {
				configMap(source.ConfigMap.Name)
			}
			token = token || source.ServiceAccountToken != nil
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				secret(&from.SecretRef.LocalObjectReference)
			}
			if from.ConfigMapRef != nil {
				configMap(from.ConfigMapRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				secret(&e.ValueFrom.SecretKeyRef.LocalObjectReference)
			}
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				configMap(e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	if token {
		note("ServiceAccount", cmp.Or(spec.ServiceAccountName, "default"))
	}
}

// mountSecrets are the Secrets that a volume of a pod is mounted with.
func mountSecrets(v *corev1.VolumeSource) []*corev1.LocalObjectReference {
	var all []*corev1.LocalObjectReference
	named := func(name string) { all = append(all, &corev1.LocalObjectReference{Name: name}) }
	if v.Secret != nil {
		named(v.Secret.SecretName)
	}
	if v.CSI != nil { // FUSE drivers read their keys from it
		all = append(all, v.CSI.NodePublishSecretRef)
	}
	if v.FlexVolume != nil {
		all = append(all, v.FlexVolume.SecretRef)
	}
	if v.ISCSI != nil {
		all = append(all, v.ISCSI.SecretRef)
	}
	if v.RBD != nil {
		all = append(all, v.RBD.SecretRef)
	}
	if v.CephFS != nil {
		all = append(all, v.CephFS.SecretRef)
	}
	if v.AzureFile != nil {
		named(v.AzureFile.SecretName)
	}
	return all
}

// String names it all, a few of each kind: "Secrets a/x, a/y; ServiceAccount a/default".
func (b brought) String() string {
	var parts []string
	for _, kind := range broughtKinds {
		names := slices.Sorted(slices.Values(b[kind]))
		switch len(names) {
		case 0:
		case 1:
			parts = append(parts, kind+" "+names[0])
		default:
			parts = append(parts, kind+"s "+some(names))
		}
	}
	return strings.Join(parts, "; ")
}
