package contract

import "fmt"

// rootCA is the ConfigMap that Kubernetes keeps in every namespace.
const rootCA = "kube-root-ca.crt"

// serviceAccountToken is row service-account-token of SUPPORT.md: the automount volume
// goes with all its mounts, of a user's projected volume only the token, and a Secret
// volume where it is mounted at the service-account path, never by its name. In the
// profile agent, namespaces can be named whose pods keep all of it.
//
// automountServiceAccountToken: false goes along with every mount at that path
// that goes, or the ServiceAccount admission, which runs again, puts one back.
func serviceAccountToken(r *review) {
	const noToken = "pods on AI nodes get no service-account token"
	if r.override == "" && r.Policy.keepsTokens(r.pod.Metadata.Namespace) {
		return
	}
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
			f := Finding{
				Field: field, Action: Strip, Routine: r.override == "",
				Detail: "no service-account token mounted", Remedy: "set automountServiceAccountToken: false",
			}
			if !f.Routine {
				f.Detail = noToken
			}
			r.gone[i] = r.find(f, r.takeVolume(i)...)
			touched = touched || r.gone[i]
		case v.tokens() > 0:
			if v.tokens() == len(v.Projected) {
				r.gone[i] = r.find(Finding{Field: field, Action: Strip, Detail: noToken}, r.takeVolume(i)...)
				touched = touched || r.gone[i] && atPath
				continue
			}
			for s, source := range v.Projected {
				if source == "serviceAccountToken" {
					r.find(Finding{Field: fmt.Sprintf("%s.projected.sources[%d]", field, s), Action: Strip, Detail: noToken},
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
// token, root CA and namespace, nothing else. Whatever else a user projects beside
// a token is not thrown away with it.
func (v *Volume) automount() bool {
	var projected struct {
		Sources []struct {
			ServiceAccountToken *struct{} `json:"serviceAccountToken"`
			ConfigMap           *struct {
				Name string `json:"name"`
			} `json:"configMap"`
			DownwardAPI *struct {
				Items []struct {
					FieldRef struct {
						FieldPath string `json:"fieldPath"`
					} `json:"fieldRef"`
				} `json:"items"`
			} `json:"downwardAPI"`
		} `json:"sources"`
	}
	if v.tokens() != 1 || Unmarshal(v.Raw, &projected) != nil {
		return false
	}
	for _, s := range projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
		case s.ConfigMap != nil && s.ConfigMap.Name == rootCA:
		case s.DownwardAPI != nil:
			for _, item := range s.DownwardAPI.Items {
				if item.FieldRef.FieldPath != "metadata.namespace" {
					return false
				}
			}
		default:
			return false
		}
	}
	return true
}
