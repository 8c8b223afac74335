package crispec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// stored is all ConfigMaps and Secrets there are, and how often they were read.
type stored struct {
	configMaps map[string]map[string]string
	secrets    map[string]map[string][]byte
	err        error
	reads      int
}

func (s *stored) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	s.reads++
	data, ok := s.configMaps[name]
	if s.err != nil || !ok {
		return nil, s.missing("configmaps", name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (s *stored) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	s.reads++
	data, ok := s.secrets[name]
	if s.err != nil || !ok {
		return nil, s.missing("secrets", name)
	}
	return &corev1.Secret{Data: data}, nil
}

func (s *stored) missing(kind, name string) error {
	if s.err != nil {
		return s.err
	}
	return apierrors.NewNotFound(corev1.Resource(kind), name)
}

func store() *stored {
	return &stored{
		configMaps: map[string]map[string]string{"settings": {"B": "cm-b", "A": "cm-a"}, "more": {"A": "more-a"}},
		secrets:    map[string]map[string][]byte{"keys": {"token": []byte("s3cret"), "bin": {0xff, 0xfe}, "nul": []byte("a\x00b")}},
	}
}

func examplePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "web-0", UID: "0d9a6b6e-1111-4222-8333-444455556666",
			Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"example.com/a": "b"},
		},
		Spec: corev1.PodSpec{
			NodeName: "ai-1", ServiceAccountName: "robot",
			Containers: []corev1.Container{
				{Name: "main", Image: "example.com/app:1", Resources: corev1.ResourceRequirements{
					Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m"), corev1.ResourceMemory: resource.MustParse("3Gi")},
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
				}},
				{Name: "other", Image: "example.com/app:1"},
			},
		},
	}
}

var facts = Facts{
	PodIPs: []string{"10.0.0.7", "fd00::7"}, HostIPs: []string{"192.0.2.1"},
	Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("1Ti")},
}

func literal(name, value string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: value} }

func from(name string, source corev1.EnvVarSource) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &source}
}

func field(path string) corev1.EnvVarSource {
	return corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func amount(container, name, divisor string) corev1.EnvVarSource {
	r := &corev1.ResourceFieldSelector{ContainerName: container, Resource: name}
	if divisor != "" {
		r.Divisor = resource.MustParse(divisor)
	}
	return corev1.EnvVarSource{ResourceFieldRef: r}
}

func configMapKey(name, key string, optional bool) corev1.EnvVarSource {
	return corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func secretKey(name, key string, optional bool) corev1.EnvVarSource {
	return corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func allOf(kind, name, prefix string, optional bool) corev1.EnvFromSource {
	s := corev1.EnvFromSource{Prefix: prefix}
	ref := corev1.LocalObjectReference{Name: name}
	if kind == "configmap" {
		s.ConfigMapRef = &corev1.ConfigMapEnvSource{LocalObjectReference: ref, Optional: &optional}
	} else {
		s.SecretRef = &corev1.SecretEnvSource{LocalObjectReference: ref, Optional: &optional}
	}
	return s
}

func pairs(env []*runtimeapi.KeyValue) []string {
	var all []string
	for _, kv := range env {
		all = append(all, kv.Key+"="+string(kv.Value))
	}
	return all
}

func TestEnv(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		envFrom []corev1.EnvFromSource
		env     []corev1.EnvVar
		want    []string
	}{
		"nothing but the host name": {want: []string{"HOSTNAME=web-0"}},
		"a host name of its own":    {env: []corev1.EnvVar{literal("HOSTNAME", "mine")}, want: []string{"HOSTNAME=mine"}},
		"literals in order, an empty one too": {
			env:  []corev1.EnvVar{literal("Z", "1"), literal("A", ""), literal("M", "2")},
			want: []string{"HOSTNAME=web-0", "Z=1", "A=", "M=2"},
		},
		"references look back only": {
			env:  []corev1.EnvVar{literal("A", "1"), literal("B", "$(A)-$(C)-$$(A)"), literal("C", "$(B)")},
			want: []string{"HOSTNAME=web-0", "A=1", "B=1-$(C)-$(A)", "C=1-$(C)-$(A)"},
		},
		"envFrom can be referred to, and env wins over it": {
			envFrom: []corev1.EnvFromSource{allOf("configmap", "settings", "", false)},
			env:     []corev1.EnvVar{literal("X", "$(A)"), literal("A", "own")},
			want:    []string{"HOSTNAME=web-0", "B=cm-b", "X=cm-a", "A=own"},
		},
		"a later envFrom wins, prefixes keep apart": {
			envFrom: []corev1.EnvFromSource{allOf("configmap", "settings", "", false), allOf("configmap", "more", "", false), allOf("configmap", "more", "P_", false)},
			want:    []string{"HOSTNAME=web-0", "B=cm-b", "A=more-a", "P_A=more-a"},
		},
		"optional and missing is left out": {
			envFrom: []corev1.EnvFromSource{allOf("configmap", "no", "", true), allOf("secret", "no", "", true)},
			env: []corev1.EnvVar{
				from("A", configMapKey("no", "k", true)), from("B", secretKey("no", "k", true)),
				from("C", configMapKey("settings", "no", true)), from("D", secretKey("keys", "no", true)),
			},
			want: []string{"HOSTNAME=web-0"},
		},
		"keys, binary ones too": {
			env:  []corev1.EnvVar{from("A", configMapKey("settings", "A", false)), from("B", secretKey("keys", "token", false)), from("C", secretKey("keys", "bin", false))},
			want: []string{"HOSTNAME=web-0", "A=cm-a", "B=s3cret", "C=\xff\xfe"},
		},
		"values from objects are not expanded": {
			env: []corev1.EnvVar{literal("A", "1"), from("B", field("metadata.annotations['example.com/a']"))}, want: []string{"HOSTNAME=web-0", "A=1", "B=b"},
		},
		"fields": {
			env: []corev1.EnvVar{
				from("NAME", field("metadata.name")), from("NS", field("metadata.namespace")), from("UID", field("metadata.uid")),
				from("LABEL", field("metadata.labels['app']")), from("NONE", field("metadata.labels['no']")),
				from("NODE", field("spec.nodeName")), from("SA", field("spec.serviceAccountName")),
				from("IP", field("status.podIP")), from("IPS", field("status.podIPs")), from("HOST", field("status.hostIP")),
			},
			want: []string{
				"HOSTNAME=web-0", "NAME=web-0", "NS=ns", "UID=0d9a6b6e-1111-4222-8333-444455556666", "LABEL=web", "NONE=",
				"NODE=ai-1", "SA=robot", "IP=10.0.0.7", "IPS=10.0.0.7,fd00::7", "HOST=192.0.2.1",
			},
		},
		"amounts are rounded up, and the node's where there is no limit": {
			env: []corev1.EnvVar{
				from("CPU", amount("", "limits.cpu", "")), from("MILLI", amount("", "limits.cpu", "1m")), from("REQ", amount("", "requests.cpu", "")),
				from("MIB", amount("", "limits.memory", "1Mi")), from("NOREQ", amount("", "requests.memory", "")),
				from("OTHER", amount("other", "limits.cpu", "")), from("OTHERMEM", amount("other", "limits.memory", "1Gi")),
			},
			want: []string{"HOSTNAME=web-0", "CPU=2", "MILLI=1500", "REQ=1", "MIB=3072", "NOREQ=0", "OTHER=64", "OTHERMEM=1024"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := examplePod()
			c := &pod.Spec.Containers[0]
			c.EnvFrom, c.Env = test.envFrom, test.env
			env, err := Env(t.Context(), pod, c, store(), facts)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(test.want, pairs(env)))
		})
	}
}

func TestEnvThatCanNotBe(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]corev1.Container{
		`configmap "no" not found`:                    {EnvFrom: []corev1.EnvFromSource{allOf("configmap", "no", "", false)}},
		`secret "no" not found`:                       {Env: []corev1.EnvVar{from("A", secretKey("no", "k", false))}},
		"couldn't find key k in ConfigMap ns/more":    {Env: []corev1.EnvVar{from("A", configMapKey("more", "k", false))}},
		"couldn't find key k in Secret ns/keys":       {Env: []corev1.EnvVar{from("A", secretKey("keys", "k", false))}},
		`environment variable "A" has a zero byte`:    {Env: []corev1.EnvVar{from("A", secretKey("keys", "nul", false))}},
		`field path "spec.x" is not supported`:        {Env: []corev1.EnvVar{from("A", field("spec.x"))}},
		`resource "limits.x" is not supported`:        {Env: []corev1.EnvVar{from("A", amount("", "limits.x", ""))}},
		`container "no", which the pod does not have`: {Env: []corev1.EnvVar{from("A", amount("no", "limits.cpu", ""))}},
	} {
		pod := examplePod()
		c.Name = "main"
		_, err := Env(t.Context(), pod, &c, store(), facts)
		require.ErrorContains(t, err, want)
		var config *ConfigError
		require.ErrorAs(t, err, &config)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestEnvWhileTheAPIIsAway(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	pod := examplePod()
	c := &corev1.Container{Name: "main", EnvFrom: []corev1.EnvFromSource{allOf("configmap", "settings", "", true)}}
	_, err := Env(t.Context(), pod, c, &stored{err: away}, facts)
	require.ErrorIs(t, err, away, "optional does not mean that it may be left out while nobody knows")
	require.ErrorContains(t, err, `read configmap "settings"`)
}

func TestEachObjectIsReadOnce(t *testing.T) {
	t.Parallel()
	s := store()
	c := &corev1.Container{Name: "main", EnvFrom: []corev1.EnvFromSource{allOf("configmap", "settings", "", false)}, Env: []corev1.EnvVar{
		from("A", configMapKey("settings", "A", false)), from("B", configMapKey("settings", "B", false)), from("C", secretKey("keys", "token", false)),
	}}
	_, err := Env(t.Context(), examplePod(), c, s, facts)
	require.NoError(t, err)
	require.Equal(t, 2, s.reads)
}

// The cases are those of the API's documentation of $(VAR_NAME).
func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"VAR": "value", "EMPTY": "", "REF": "$(VAR)"}
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(VAR)": "value", "a$(VAR)b$(VAR)": "avaluebvalue", "$(EMPTY)": "",
		"$(NO)": "$(NO)", "$(NO)$(VAR)": "$(NO)value", "$$(VAR)": "$(VAR)", "$$$(VAR)": "$value", "$$$$(VAR)": "$$(VAR)",
		"$VAR": "$VAR", "${VAR}": "${VAR}", "$": "$", "a$": "a$", "$$": "$", "$(": "$(", "$(VAR": "$(VAR", "$()": "$()",
		"$((VAR))": "$((VAR))", "$(REF)": "$(VAR)", "$(A$(VAR)": "$(A$(VAR)", "100%$(VAR)$": "100%value$",
	} {
		require.Equal(t, want, expand(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok }), "expand %q", in)
	}
}

func TestExpandSubPaths(t *testing.T) {
	t.Parallel()
	env := []*runtimeapi.KeyValue{{Key: "POD", Value: []byte("web-0")}}
	plain := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "v", SubPath: "s"}}}
	same, err := ExpandSubPaths(plain, env)
	require.NoError(t, err)
	require.Same(t, plain, same)

	c := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "v", SubPathExpr: "logs/$(POD)"}}}
	expanded, err := ExpandSubPaths(c, env)
	require.NoError(t, err)
	require.Equal(t, corev1.VolumeMount{Name: "v", SubPath: "logs/web-0"}, expanded.VolumeMounts[0])
	require.Equal(t, "logs/$(POD)", c.VolumeMounts[0].SubPathExpr, "the pod's own object stays as it is")

	_, err = ExpandSubPaths(&corev1.Container{VolumeMounts: []corev1.VolumeMount{{SubPathExpr: "$(NO)"}}}, env)
	require.ErrorContains(t, err, "names NO")
}

func TestDNS(t *testing.T) {
	t.Parallel()
	machine := ParseResolv("# a comment\nnameserver 192.0.2.53\nnameserver 192.0.2.54 \nsearch old.example\nsearch corp.example. lab.example\noptions ndots:1 rotate\nsortlist x\n")
	require.Equal(t, NodeResolv{Nameservers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"corp.example", "lab.example"}, Options: []string{"ndots:1", "rotate"}}, machine)
	more := &corev1.PodDNSConfig{
		Nameservers: []string{"10.96.0.10", "192.0.2.53", "192.0.2.99"}, Searches: []string{"svc.cluster.local", "lab.example"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("5")}, {Name: "edns0"}},
	}
	for name, test := range map[string]struct {
		policy corev1.DNSPolicy
		config *corev1.PodDNSConfig
		want   *runtimeapi.DNSConfig
	}{
		"default": {corev1.DNSDefault, nil, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"corp.example", "lab.example"}, Options: []string{"ndots:1", "rotate"}}},
		"cluster first is default": {corev1.DNSClusterFirst, nil, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"corp.example", "lab.example"}, Options: []string{"ndots:1", "rotate"}}},
		"default and more, three servers at most": {corev1.DNSDefault, more, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.53", "192.0.2.54", "10.96.0.10"}, Searches: []string{"corp.example", "lab.example", "svc.cluster.local"}, Options: []string{"rotate", "ndots:5", "edns0"}}},
		"none": {corev1.DNSNone, more, &runtimeapi.DNSConfig{
			Servers: []string{"10.96.0.10", "192.0.2.53", "192.0.2.99"}, Searches: []string{"svc.cluster.local", "lab.example"}, Options: []string{"ndots:5", "edns0"}}},
	} {
		got, omitted := DNS(&corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: test.policy, DNSConfig: test.config}}, machine)
		require.Equal(t, test.want.String(), got.String(), name)
		require.Equal(t, strings.Contains(name, "three servers at most"), len(omitted) == 1, "%s: %v", name, omitted)
	}
}

func TestSearchesThatFit(t *testing.T) {
	t.Parallel()
	dns := func(searches ...string) ([]string, []string) {
		d, omitted := DNS(&corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Searches: searches}}}, NodeResolv{})
		return d.Searches, omitted
	}
	var many []string
	for i := range 33 {
		many = append(many, fmt.Sprintf("d%d.example", i))
	}
	got, omitted := dns(many...)
	require.Equal(t, many[:32], got)
	require.Len(t, omitted, 1)
	require.Contains(t, omitted[0], "Search Line limits were exceeded")

	long := strings.Repeat("x", 254)
	got, omitted = dns("a", long, "b")
	require.Equal(t, []string{"a", "b"}, got)
	require.Len(t, omitted, 1)

	var wide []string
	for i := range 9 {
		wide = append(wide, fmt.Sprintf("%d%s", i, strings.Repeat("y", 227))) // 228 each, 8 and their spaces are 1831
	}
	got, omitted = dns(wide...)
	require.Len(t, got, 8)
	require.Len(t, omitted, 1)
	got, omitted = dns(wide[:8]...)
	require.Len(t, got, 8)
	require.Empty(t, omitted)
	require.Equal(t, NodeResolv{Searches: []string{"a"}}, ParseResolv("search . a.\n"))
}
