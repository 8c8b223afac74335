package volumes

import corev1 "k8s.io/api/core/v1"

// OnDisk are the folders of the pod's volumes that it can fill the disk with, by
// volume name: its emptyDirs, but for those in memory. They may not be there (yet).
func (m *Manager) OnDisk(pod *corev1.Pod) map[string]string {
	folders := map[string]string{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		plain := v.VolumeSource == corev1.VolumeSource{} // an emptyDir that nothing is said of
		if (plain || v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault) && checkUID(pod.UID) == nil {
			folders[v.Name] = m.volume(pod.UID, v.Name)
		}
	}
	return folders
}
