package crispec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ConfigError says that a container can't be configured as its pod says: a
// ConfigMap, Secret, key or field that it refers to is not there. The kubelet shows
// such an error as the waiting reason CreateContainerConfigError.
type ConfigError struct {
	message string
	cause   error
}

func (e *ConfigError) Error() string { return e.message }

// Unwrap returns the API's error, where there was one.
func (e *ConfigError) Unwrap() error { return e.cause }

func configErrorf(format string, args ...any) *ConfigError {
	return &ConfigError{message: fmt.Sprintf(format, args...)}
}

// Env are the variables of a container: HOSTNAME, then those of Services, then envFrom
// source by source, then env, each name once. Later definitions win. Values in env are
// expanded by what was defined before them.
//
// What a user can mend is a *ConfigError; other errors are those of objects.
func Env(ctx context.Context, pod *corev1.Pod, c *corev1.Container, objects Objects, facts Facts) ([]*runtimeapi.KeyValue, error) {
	e := &environment{
		pod: pod, container: c, facts: facts,
		lookup: &Lookup{Objects: objects, Namespace: pod.Namespace},
		values: map[string]string{},
	}
	for _, name := range slices.Sorted(maps.Keys(facts.ServiceEnv)) {
		e.set(name, facts.ServiceEnv[name])
	}
	for i := range c.EnvFrom {
		if err := e.from(ctx, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		if err := e.add(ctx, &c.Env[i]); err != nil {
			return nil, err
		}
	}
	var env []*runtimeapi.KeyValue
	if _, own := e.values["HOSTNAME"]; !own {
		// The runtime would set it to the machine's name in the machine's network.
		name, err := FullHostname(pod, facts.ClusterDomain)
		if err != nil {
			return nil, configErrorf("%v", err)
		}
		env = append(env, &runtimeapi.KeyValue{Key: "HOSTNAME", Value: []byte(name)})
	}
	for _, name := range e.order {
		value := e.values[name]
		if strings.ContainsRune(value, 0) {
			return nil, configErrorf("the value of environment variable %q has a zero byte, which no process can be given: mount it as a file", name)
		}
		env = append(env, &runtimeapi.KeyValue{Key: name, Value: []byte(value)})
	}
	return env, nil
}

type environment struct {
	pod       *corev1.Pod
	container *corev1.Container
	facts     Facts
	lookup    *Lookup
	values    map[string]string
	order     []string
}

func (e *environment) set(name, value string) {
	if _, again := e.values[name]; again {
		e.order = slices.DeleteFunc(e.order, func(known string) bool { return known == name })
	}
	e.values[name] = value
	e.order = append(e.order, name)
}

func (e *environment) from(ctx context.Context, source *corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case source.ConfigMapRef != nil:
		object, err := e.lookup.ConfigMap(ctx, source.ConfigMapRef.Name, isTrue(source.ConfigMapRef.Optional))
		if err != nil {
			return err
		}
		data = object.Data
	case source.SecretRef != nil:
		object, err := e.lookup.Secret(ctx, source.SecretRef.Name, isTrue(source.SecretRef.Optional))
		if err != nil {
			return err
		}
		for key, value := range object.Data {
			data[key] = string(value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		e.set(source.Prefix+key, data[key])
	}
	return nil
}

func (e *environment) add(ctx context.Context, v *corev1.EnvVar) error {
	if v.Value != "" || v.ValueFrom == nil {
		e.set(v.Name, expand(v.Value, func(name string) (string, bool) {
			value, ok := e.values[name]
			return value, ok
		}))
		return nil
	}
	value, found, err := e.resolve(ctx, v.ValueFrom)
	if err != nil {
		return err
	}
	if found {
		e.set(v.Name, value)
	}
	return nil
}

func (e *environment) resolve(ctx context.Context, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = FieldValue(e.pod, from.FieldRef.FieldPath, e.facts)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = ResourceValue(e.pod, e.container.Name, from.ResourceFieldRef, e.facts.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		object, err := e.lookup.ConfigMap(ctx, ref.Name, isTrue(ref.Optional))
		if err != nil {
			return "", false, err
		}
		if value, found = object.Data[ref.Key]; !found && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %s in ConfigMap %s/%s", ref.Key, e.pod.Namespace, ref.Name)
		}
		return value, found, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		object, err := e.lookup.Secret(ctx, ref.Name, isTrue(ref.Optional))
		if err != nil {
			return "", false, err
		}
		raw, found := object.Data[ref.Key]
		if !found && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %s in Secret %s/%s", ref.Key, e.pod.Namespace, ref.Name)
		}
		return string(raw), found, nil
	case from.FileKeyRef != nil:
		return "", false, configErrorf("fileKeyRef is not supported on AI nodes yet")
	default:
		return "", false, configErrorf("valueFrom names a source that this node does not know")
	}
}

// Lookup reads ConfigMaps and Secrets of one namespace, each once, and words what
// is missing as the kubelet does.
type Lookup struct {
	Objects   Objects
	Namespace string

	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

// ConfigMap returns the named one; if it does not exist and is optional, an empty
// one; otherwise a *ConfigError.
func (l *Lookup) ConfigMap(ctx context.Context, name string, optional bool) (*corev1.ConfigMap, error) {
	if known, ok := l.configMaps[name]; ok {
		return known, nil
	}
	object, err := l.Objects.ConfigMap(ctx, l.Namespace, name)
	switch {
	case apierrors.IsNotFound(err) && optional:
		return &corev1.ConfigMap{}, nil
	case err != nil:
		return nil, missing("configmap", name, err)
	}
	if l.configMaps == nil {
		l.configMaps = map[string]*corev1.ConfigMap{}
	}
	l.configMaps[name] = object
	return object, nil
}

// Secret is like ConfigMap.
func (l *Lookup) Secret(ctx context.Context, name string, optional bool) (*corev1.Secret, error) {
	if known, ok := l.secrets[name]; ok {
		return known, nil
	}
	object, err := l.Objects.Secret(ctx, l.Namespace, name)
	switch {
	case apierrors.IsNotFound(err) && optional:
		return &corev1.Secret{}, nil
	case err != nil:
		return nil, missing("secret", name, err)
	}
	if l.secrets == nil {
		l.secrets = map[string]*corev1.Secret{}
	}
	l.secrets[name] = object
	return object, nil
}

// missing words a failed look-up. That the Node authorizer does not let the node
// see an object that its pod names is, a moment after the pod came, normal: the
// error is told as it is, and the look-up tried again.
func missing(kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return &ConfigError{message: fmt.Sprintf("%s %q not found", kind, name), cause: err}
	}
	var known *ConfigError
	if errors.As(err, &known) {
		return err
	}
	return &ConfigError{message: fmt.Sprintf("read %s %q: %v", kind, name, err), cause: err}
}
