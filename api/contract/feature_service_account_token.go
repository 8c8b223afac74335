package contract

import "fmt"

// serviceAccountToken, contract §6: the automount volume goes with all its mounts,
// of a user's projected volume only the token, and a Secret volume where it is
// mounted at the service-account path, never by its name.
//
// automountServiceAccountToken: false goes along with every mount at that path
// that goes, or the ServiceAccount admission, which runs again, puts one back.
func serviceAccountToken(r *review) {
	touched := false
	for i := range r.pod.Spec.Volumes {
		v := &r.pod.Spec.Volumes[i]
		atPath := r.mountedAt(i, ServiceAccountMountPath, false)
		field := fmt.Sprintf("spec.volumes[%d]", i)
		switch {
		case v.Source == "secret" && atPath:
			r.gone[i] = r.find(Finding{
				Field: field, Action: Strip, Old: v.Raw,
				Detail: "a Secret mounted at the service-account path counts as a token, and pods on AI nodes get none",
				Remedy: "mount the Secret at another path",
			}, r.takeVolume(i)...)
			touched = touched || r.gone[i]
		case v.Source != "projected":
		case atPath && v.automount():
			r.gone[i] = r.find(Finding{
				Field: field, Action: Strip, Routine: true,
				Detail: "no service-account token mounted", Remedy: "set automountServiceAccountToken: false",
			}, r.takeVolume(i)...)
			touched = touched || r.gone[i]
		case v.tokens() > 0:
			const detail = "pods on AI nodes get no service-account token"
			if v.tokens() == len(v.Projected) {
				r.gone[i] = r.find(Finding{Field: field, Action: Strip, Detail: detail}, r.takeVolume(i)...)
				touched = touched || r.gone[i] && atPath
				continue
			}
			for s, source := range v.Projected {
				if source == "serviceAccountToken" {
					r.find(Finding{Field: fmt.Sprintf("%s.projected.sources[%d]", field, s), Action: Strip, Detail: detail},
						removeAt(fmt.Sprintf("/spec/volumes/%d/projected/sources", i), s, len(v.Projected)))
				}
			}
		}
	}
	automount := r.pod.Spec.AutomountServiceAccountToken
	if touched && (automount == nil || *automount) {
		set("/spec/automountServiceAccountToken", false)(&r.patch)
	}
}

// tokens counts the token sources of a projected volume.
func (v *Volume) tokens() int {
	n := 0
	for _, source := range v.Projected {
		if source == "serviceAccountToken" {
			n++
		}
	}
	return n
}

// automount is true of a volume like those the ServiceAccount admission makes:
// token, root CA and namespace, nothing else.
func (v *Volume) automount() bool {
	counts := map[string]int{}
	for _, source := range v.Projected {
		counts[source]++
	}
	known := counts["serviceAccountToken"] + counts["configMap"] + counts["downwardAPI"]
	return counts["serviceAccountToken"] == 1 && counts["configMap"] <= 1 && counts["downwardAPI"] <= 1 && known == len(v.Projected)
}
