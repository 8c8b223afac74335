package crispec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Container is one container of pod: app, init or sidecar.
func Container(pod *corev1.Pod, c *corev1.Container, o ContainerOptions) (*runtimeapi.ContainerConfig, error) {
	config, err := container(pod, c, o)
	if err != nil {
		return nil, fmt.Errorf("configure container %q of pod %q: %w", c.Name, pod.Namespace+"/"+pod.Name, err)
	}
	return config, nil
}

func container(pod *corev1.Pod, c *corev1.Container, o ContainerOptions) (*runtimeapi.ContainerConfig, error) {
	if o.ImageRef == "" {
		return nil, errors.New("its image is not on the machine")
	}
	annotations, err := containerAnnotations(pod, c, o)
	if err != nil {
		return nil, err
	}
	security, err := containerSecurity(pod, c, o)
	if err != nil {
		return nil, err
	}
	signal, err := stopSignal(c)
	if err != nil {
		return nil, err
	}
	labels := podLabels(pod)
	labels[LabelContainerName] = c.Name

	lookup := lookupIn(o.Env)
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: o.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: o.ImageRef, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, lookup),
		Args:        expandAll(c.Args, lookup),
		WorkingDir:  c.WorkingDir,
		Envs:        withDevices(o.Env, o.VisibleDevices),
		Mounts:      o.Mounts,
		Labels:      labels,
		Annotations: annotations,
		LogPath:     LogPath(c.Name, o.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  signal,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       Resources(pod, c, o.NodeMemory),
			SecurityContext: security,
		},
	}
	for _, name := range o.CDIDevices {
		config.CDIDevices = append(config.CDIDevices, &runtimeapi.CDIDevice{Name: name})
	}
	return config, nil
}

// withDevices is env with what NVIDIA's runtime handler goes by. Env is the caller's.
func withDevices(env []*runtimeapi.KeyValue, visible string) []*runtimeapi.KeyValue {
	const name = "NVIDIA_VISIBLE_DEVICES"
	if visible == "" {
		return env
	}
	own := slices.DeleteFunc(slices.Clone(env), func(e *runtimeapi.KeyValue) bool { return e.Key == name })
	return append(own, &runtimeapi.KeyValue{Key: name, Value: []byte(visible)})
}

func containerAnnotations(pod *corev1.Pod, c *corev1.Container, o ContainerOptions) (map[string]string, error) {
	hash := o.SpecHash
	if hash == "" {
		hash = SpecHash(c)
	}
	a := podAnnotations(pod)
	a[AnnotationSpecHash] = hash
	a[AnnotationRestartCount] = strconv.FormatUint(uint64(o.Attempt), 10)
	a[AnnotationMessagePath] = c.TerminationMessagePath
	a[AnnotationMessagePolicy] = string(c.TerminationMessagePolicy)
	if len(o.GPUs) > 0 {
		a[AnnotationGPUs] = strings.Join(o.GPUs, ",")
	}
	if len(c.Ports) > 0 {
		ports, err := json.Marshal(c.Ports)
		if err != nil {
			return nil, fmt.Errorf("encode its ports: %w", err)
		}
		a[AnnotationPorts] = string(ports)
	}
	return a, nil
}

// SpecHash tells whether a container runs what its pod says. Like the kubelet's it
// covers name and image: nothing else of a running pod's container that needs a
// restart can change, and fields that a newer API server fills in must not restart
// anything.
func SpecHash(c *corev1.Container) string {
	sum := sha256.Sum256([]byte(c.Name + "\x00" + c.Image))
	return hex.EncodeToString(sum[:8])
}

// stopSignal of the container; the API calls signals what CRI does.
func stopSignal(c *corev1.Container) (runtimeapi.Signal, error) {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, nil
	}
	name := string(*c.Lifecycle.StopSignal)
	signal, ok := runtimeapi.Signal_value["SIGNAL_"+name]
	if !ok {
		signal, ok = runtimeapi.Signal_value[name]
	}
	if !ok {
		return 0, fmt.Errorf("stop signal %q is not known", name)
	}
	return runtimeapi.Signal(signal), nil
}
