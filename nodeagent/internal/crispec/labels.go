package crispec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/ainode/ainode/api/contract"
)

// Labels of sandboxes and containers, under the kubelet's names, by which crictl
// and dashboards find them.
const (
	LabelPodName       = kubelettypes.KubernetesPodNameLabel
	LabelPodNamespace  = kubelettypes.KubernetesPodNamespaceLabel
	LabelPodUID        = kubelettypes.KubernetesPodUIDLabel
	LabelContainerName = kubelettypes.KubernetesContainerNameLabel
)

// Annotations of sandboxes and containers: what must be known of them when the
// agent starts again and the API does not answer.
const (
	// AnnotationEpoch is the epoch that the binding began in, on sandboxes.
	AnnotationEpoch = contract.BindEpochAnnotation
	// AnnotationGrace is the pod's termination grace in seconds, on both.
	AnnotationGrace = contract.Group + "/termination-grace-period-seconds"
	// AnnotationGPUs are the UUIDs of the container's cards, separated by commas.
	AnnotationGPUs = contract.Group + "/container-gpus"
	// AnnotationRestartCount counts the containers of that name before this one.
	AnnotationRestartCount = contract.Group + "/restart-count"
	// AnnotationSpecHash is SpecHash of the container.
	AnnotationSpecHash = contract.Group + "/spec-hash"
	// AnnotationMessagePath and AnnotationMessagePolicy say where the container
	// leaves its termination message.
	AnnotationMessagePath   = contract.Group + "/termination-message-path"
	AnnotationMessagePolicy = contract.Group + "/termination-message-policy"
	// AnnotationPorts is the JSON of the container's ports.
	AnnotationPorts = contract.Group + "/container-ports"
)

// SandboxInfo is what a sandbox's labels and annotations say.
type SandboxInfo struct {
	Namespace, Name string
	UID             types.UID
	Epoch           int64
	// Grace is the pod's termination grace; nil if it was not recorded.
	Grace *time.Duration
}

// ContainerInfo is what a container's labels and annotations say.
type ContainerInfo struct {
	Namespace, Name string
	UID             types.UID
	Container       string
	GPUs            []string
	RestartCount    int
	SpecHash        string
	MessagePath     string
	MessagePolicy   corev1.TerminationMessagePolicy
	Grace           *time.Duration
	Ports           []corev1.ContainerPort
}

// ErrForeign says that labels are not those of a pod.
var ErrForeign = errors.New("not a pod's: its labels name none")

// ParseSandbox reads back what Sandbox recorded. Labels that name no pod are
// ErrForeign; annotations that are missing leave their fields empty.
func ParseSandbox(labels, annotations map[string]string) (SandboxInfo, error) {
	info := SandboxInfo{
		Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName], UID: types.UID(labels[LabelPodUID]),
	}
	if info.UID == "" {
		return SandboxInfo{}, ErrForeign
	}
	var err error
	if text := annotations[AnnotationEpoch]; text != "" {
		if info.Epoch, err = strconv.ParseInt(text, 10, 64); err != nil {
			return SandboxInfo{}, fmt.Errorf("read annotation %q: %w", AnnotationEpoch, err)
		}
	}
	if info.Grace, err = parseGrace(annotations); err != nil {
		return SandboxInfo{}, err
	}
	return info, nil
}

// ParseContainer reads back what Container recorded, like ParseSandbox.
func ParseContainer(labels, annotations map[string]string) (ContainerInfo, error) {
	info := ContainerInfo{
		Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName], UID: types.UID(labels[LabelPodUID]),
		Container:     labels[LabelContainerName],
		SpecHash:      annotations[AnnotationSpecHash],
		MessagePath:   annotations[AnnotationMessagePath],
		MessagePolicy: corev1.TerminationMessagePolicy(annotations[AnnotationMessagePolicy]),
	}
	if info.UID == "" || info.Container == "" {
		return ContainerInfo{}, ErrForeign
	}
	if text := annotations[AnnotationGPUs]; text != "" {
		info.GPUs = strings.Split(text, ",")
	}
	var err error
	if text := annotations[AnnotationRestartCount]; text != "" {
		if info.RestartCount, err = strconv.Atoi(text); err != nil {
			return ContainerInfo{}, fmt.Errorf("read annotation %q: %w", AnnotationRestartCount, err)
		}
	}
	if text := annotations[AnnotationPorts]; text != "" {
		if err := json.Unmarshal([]byte(text), &info.Ports); err != nil {
			return ContainerInfo{}, fmt.Errorf("read annotation %q: %w", AnnotationPorts, err)
		}
	}
	if info.Grace, err = parseGrace(annotations); err != nil {
		return ContainerInfo{}, err
	}
	return info, nil
}

func parseGrace(annotations map[string]string) (*time.Duration, error) {
	text := annotations[AnnotationGrace]
	if text == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read annotation %q: %w", AnnotationGrace, err)
	}
	grace := time.Duration(seconds) * time.Second
	return &grace, nil
}

// podLabels are on a pod's sandbox and on its containers.
func podLabels(pod *corev1.Pod) map[string]string {
	return map[string]string{
		LabelPodName: pod.Name, LabelPodNamespace: pod.Namespace, LabelPodUID: string(pod.UID),
	}
}

// podAnnotations are on a pod's sandbox and on its containers.
func podAnnotations(pod *corev1.Pod) map[string]string {
	a := map[string]string{}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		a[AnnotationGrace] = strconv.FormatInt(*grace, 10)
	}
	return a
}
