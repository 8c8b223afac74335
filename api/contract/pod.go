package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
)

// Pod is what the rules see of a pod: the fields that a row claims, with enough
// of their JSON to build a patch and to tell what was there. Fields that no row
// claims, and fields newer than this program, are never decoded, so they can't
// get lost.
type Pod struct {
	Metadata Metadata
	Spec     Spec
}

// Metadata is what the rules see of a pod's metadata.
type Metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
	OwnerReferences []Owner           `json:"ownerReferences"`

	absent bool
}

// Owner is what the rules see of an owner reference.
type Owner struct {
	Kind       string `json:"kind"`
	Controller bool   `json:"controller"`
}

// Spec is what the rules see of a pod's spec.
type Spec struct {
	NodeName                     string              `json:"nodeName"`
	NodeSelector                 map[string]string   `json:"nodeSelector"`
	Affinity                     *Affinity           `json:"affinity"`
	Tolerations                  []corev1.Toleration `json:"tolerations"`
	HostNetwork                  bool                `json:"hostNetwork"`
	HostPID                      bool                `json:"hostPID"`
	HostIPC                      bool                `json:"hostIPC"`
	DNSPolicy                    string              `json:"dnsPolicy"`
	DNSConfig                    *DNSConfig          `json:"dnsConfig"`
	AutomountServiceAccountToken *bool               `json:"automountServiceAccountToken"`
	SecurityContext              *Security           `json:"securityContext"`
	RuntimeClassName             *string             `json:"runtimeClassName"`
	Overhead                     json.RawMessage     `json:"overhead"`
	ResourceClaims               []struct{}          `json:"resourceClaims"`
	TopologySpreadConstraints    []Topology          `json:"topologySpreadConstraints"`
	Volumes                      []Volume            `json:"volumes"`
	InitContainers               []*Container        `json:"initContainers"`
	Containers                   []*Container        `json:"containers"`
	EphemeralContainers          []*Container        `json:"ephemeralContainers"`
}

// DNSConfig is what the rules see of a pod's dnsConfig.
type DNSConfig struct {
	Nameservers []string `json:"nameservers"`
}

// Topology is anything that spreads by a topology key.
type Topology struct {
	TopologyKey string `json:"topologyKey"`
}

// Container is what the rules see of a container of any kind.
type Container struct {
	Name            string     `json:"name"`
	Command         []string   `json:"command"`
	Args            []string   `json:"args"`
	Env             []Env      `json:"env"`
	Ports           []Port     `json:"ports"`
	Resources       *Resources `json:"resources"`
	VolumeMounts    []Mount    `json:"volumeMounts"`
	VolumeDevices   []struct{} `json:"volumeDevices"`
	SecurityContext *Security  `json:"securityContext"`

	field string // spec.containers[0]
	path  string // /spec/containers/0
}

// Env is what the rules see of an environment variable. Its value may be a secret:
// it is never repeated.
type Env struct {
	Value string `json:"value"`
}

// Port is what the rules see of a container's port.
type Port struct {
	ContainerPort int32  `json:"containerPort"`
	HostPort      int32  `json:"hostPort"`
	HostIP        string `json:"hostIP"`
}

// Mount is a volume's mount in a container.
type Mount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
}

// at reports whether m mounts at dir or, with below, under it. A relative
// mountPath is one from the root, as container runtimes take it.
func (m Mount) at(dir string, below bool) bool {
	p := path.Clean("/" + m.MountPath)
	return p == dir || below && strings.HasPrefix(p, dir+"/")
}

// Resources is what the rules see of a container's resources.
type Resources struct {
	Limits   Amounts    `json:"limits"`
	Requests Amounts    `json:"requests"`
	Claims   []struct{} `json:"claims"`
}

// Amounts are the GPU amounts of a resource list as they are written, so that
// what is no quantity can be told; nil where the list is absent.
type Amounts map[string]string

// UnmarshalJSONFrom keeps the GPUs of a resource list and passes over the rest.
func (a *Amounts) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	begin, err := in.ReadToken()
	switch {
	case err != nil:
		return fmt.Errorf("decode resources: %w", err)
	case begin.Kind() == jsontext.KindNull:
		*a = nil
		return nil
	case begin.Kind() != jsontext.KindBeginObject:
		return fmt.Errorf("decode resources: it is no object but %s", begin.Kind())
	}
	*a = Amounts{}
	for in.PeekKind() == jsontext.KindString {
		key, err := in.ReadToken()
		if err != nil {
			return fmt.Errorf("decode resources: %w", err)
		}
		name := key.String()
		amount, err := in.ReadValue()
		if err != nil {
			return fmt.Errorf("decode resources: %w", err)
		}
		if IsGPUResource(corev1.ResourceName(name)) {
			(*a)[name] = text(json.RawMessage(amount))
		}
	}
	if _, err := in.ReadToken(); err != nil {
		return fmt.Errorf("decode resources: %w", err)
	}
	return nil
}

// keys is an object of which any key may matter, also one that this program does
// not know.
type keys map[string]json.RawMessage

// text is a JSON string's text, and any other value as it stands.
func text(raw json.RawMessage) string {
	var s string
	if Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// Volume is what the rules see of a volume. Source is the name of its type as it
// stands in JSON, also one that this program does not know; empty where the
// volume names none (the API server then means an emptyDir).
type Volume struct {
	Name   string
	Source string
	Raw    json.RawMessage // of the source

	EmptyDir  EmptyDir
	HostPath  HostPath
	Projected []string // the sources' type names, in order
}

// EmptyDir is what the rules see of an emptyDir.
type EmptyDir struct {
	Medium    string          `json:"medium"`
	SizeLimit json.RawMessage `json:"sizeLimit"`
}

// HostPath is a hostPath volume.
type HostPath struct {
	Path string `json:"path"`
	Type string `json:"type"`
}

// volume finds the type of a volume.
func volume(all keys) (Volume, error) {
	if all == nil {
		return Volume{}, errors.New("it is null")
	}
	v := Volume{Name: text(all["name"])}
	v.Source, v.Raw = only(all, "name")
	var err error
	switch v.Source {
	case "emptyDir":
		err = Unmarshal(v.Raw, &v.EmptyDir)
	case "hostPath":
		err = Unmarshal(v.Raw, &v.HostPath)
	case "projected":
		var projected struct {
			Sources []keys `json:"sources"`
		}
		err = Unmarshal(v.Raw, &projected)
		for _, source := range projected.Sources {
			name, _ := only(source, "")
			v.Projected = append(v.Projected, name)
		}
	}
	return v, err
}

// only is the one key of m besides except that holds something.
func only(m keys, except string) (string, json.RawMessage) {
	var found string
	for key, value := range m {
		if key != except && key != "" && !bytes.Equal(value, []byte("null")) && (found == "" || key < found) {
			found = key
		}
	}
	return found, m[found]
}

// Security is what the rules see of the security context of a pod or a container.
type Security struct {
	securityFields
	Raw json.RawMessage `json:"-"`
	set bool            // any field of it, also one that this program does not know
}

type securityFields struct {
	Capabilities struct {
		Add  []string `json:"add"`
		Drop []string `json:"drop"`
	} `json:"capabilities"`
	Privileged               bool         `json:"privileged"`
	RunAsUser                *int64       `json:"runAsUser"`
	RunAsGroup               *int64       `json:"runAsGroup"`
	RunAsNonRoot             bool         `json:"runAsNonRoot"`
	ReadOnlyRootFilesystem   bool         `json:"readOnlyRootFilesystem"`
	AllowPrivilegeEscalation *bool        `json:"allowPrivilegeEscalation"`
	ProcMount                string       `json:"procMount"`
	SeccompProfile           *profileType `json:"seccompProfile"`
	AppArmorProfile          *profileType `json:"appArmorProfile"`
	Sysctls                  []sysctl     `json:"sysctls"`
	SELinuxOptions           *seLinux     `json:"seLinuxOptions"`
	WindowsOptions           *struct{}    `json:"windowsOptions"`
}

type sysctl struct {
	Name string `json:"name"`
}

type seLinux struct {
	User string `json:"user"`
	Role string `json:"role"`
	Type string `json:"type"`
}

type profileType struct {
	Type string `json:"type"`
}

// UnmarshalJSON keeps the context's JSON beside its fields.
func (s *Security) UnmarshalJSON(raw []byte) error {
	*s = Security{Raw: bytes.Clone(raw)}
	if string(raw) == "{}" {
		return nil // the API server's default
	}
	if err := Unmarshal(raw, &s.securityFields); err != nil {
		return fmt.Errorf("decode a security context: %w", err)
	}
	if s.set = len(s.protections()) > 0; s.set {
		return nil // no need to look at each key
	}
	var all keys
	if err := Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("decode a security context: %w", err)
	}
	for name, value := range all {
		unset := bytes.Equal(value, []byte("null")) || name == "procMount" && s.ProcMount == string(corev1.DefaultProcMount)
		s.set = s.set || !unset
	}
	return nil
}

// Object is the JSON of a pod or a pod template. It decodes as a part of whatever
// holds it (a review, a workload), so that all of it is read in one pass.
type Object struct {
	Metadata *Metadata `json:"metadata"`
	Spec     *struct {
		Spec
		Volumes []keys `json:"volumes"` // before their types are known
	} `json:"spec"`
}

// Pod is the pod whose JSON o is.
func (o *Object) Pod() (*Pod, error) {
	if o == nil || o.Spec == nil {
		return nil, errors.New("decode pod: it has no spec")
	}
	pod := &Pod{Metadata: Metadata{absent: true}, Spec: o.Spec.Spec}
	if o.Metadata != nil {
		pod.Metadata = *o.Metadata
	}
	pod.Spec.Volumes = make([]Volume, 0, len(o.Spec.Volumes))
	for i, all := range o.Spec.Volumes {
		v, err := volume(all)
		if err != nil {
			return nil, fmt.Errorf("decode pod: spec.volumes[%d]: %w", i, err)
		}
		pod.Spec.Volumes = append(pod.Spec.Volumes, v)
	}
	pod.number()
	return pod, nil
}

// Decode reads a pod's JSON.
func Decode(raw []byte) (*Pod, error) {
	var o Object
	if err := Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("decode pod: %w", err)
	}
	return o.Pod()
}

// FromPod is Decode for a pod that is decoded already.
func FromPod(pod *corev1.Pod) (*Pod, error) {
	raw, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode pod %q: %w", pod.Name, err)
	}
	return Decode(raw)
}

// FromTemplate is Decode for the pod template of a workload.
func FromTemplate(template *corev1.PodTemplateSpec) (*Pod, error) {
	return FromPod(&corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
}

func (p *Pod) number() {
	for _, kind := range []struct {
		name string
		list []*Container
	}{
		{"initContainers", p.Spec.InitContainers},
		{"containers", p.Spec.Containers},
		{"ephemeralContainers", p.Spec.EphemeralContainers},
	} {
		for i, c := range kind.list {
			if c != nil {
				c.field = "spec." + kind.name + "[" + strconv.Itoa(i) + "]"
				c.path = "/spec/" + kind.name + "/" + strconv.Itoa(i)
			}
		}
	}
}

// containers calls f for every container of every kind.
func (p *Pod) containers(f func(*Container)) {
	for _, list := range [][]*Container{p.Spec.InitContainers, p.Spec.Containers, p.Spec.EphemeralContainers} {
		for _, c := range list {
			if c != nil {
				f(c)
			}
		}
	}
}
