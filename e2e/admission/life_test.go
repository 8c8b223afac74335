package admission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
)

// violating is a Deployment that somebody made before the chart was installed: no
// AI node runs its pods.
const violating = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: violating, finalizers: [example.com/hold]}
spec:
  replicas: 0
  selector: {matchLabels: {app: violating}}
  template:
    metadata: {labels: {app: violating, ainode.dev/schedule: "true"}}
    spec:
      volumes: [{name: etc, hostPath: {path: /etc}}]
      containers: [{name: a, image: demo.local/tools:v1, resources: {limits: {nvidia.com/gpu: "1"}}, volumeMounts: [{name: etc, mountPath: /etc}]}]
`

// gated waits for somebody to take its gate away.
const gated = `
apiVersion: v1
kind: Pod
metadata: {name: gated}
spec:
  schedulingGates: [{name: example.com/wait}]
  nodeSelector: {alibabacloud.com/virtual-node: "true"}
  hostPID: true
  containers: [{name: a, image: demo.local/tools:v1, securityContext: {runAsNonRoot: true}}]
`

func (c *cluster) testBefore(t *testing.T) {
	c.namespace(t, "life", nil)
	c.create(t, deployments, "life", violating)
	c.create(t, pods, "life", gated)
	for _, v := range violations {
		c.create(t, v.at, "life", v.text)
	}
}

// violations are the other kinds of workload, each made before the chart was
// installed. fine is a change that leaves the template alone, bad one that does not.
var violations = []struct {
	at                    schema.GroupVersionResource
	text, fine, bad, says string
}{
	{
		schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"},
		`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: bad, finalizers: [example.com/hold]}, spec: {replicas: 0, serviceName: bad, selector: {matchLabels: {app: sts}}, template: {metadata: {labels: {app: sts}}, spec: {nodeName: ai-gone, volumes: [{name: etc, hostPath: {path: /etc}}], containers: [{name: a, image: a}]}}}}`,
		`{"spec":{"replicas":1}}`, `{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}`, "- host-path: spec.template.spec.volumes[0].hostPath",
	},
	{
		schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"},
		`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: bad, finalizers: [example.com/hold]}, spec: {selector: {matchLabels: {app: ds}}, template: {metadata: {labels: {app: ds}}, spec: {nodeSelector: {alibabacloud.com/virtual-node: "true"}, containers: [{name: a, image: a}]}}}}`,
		`{"spec":{"minReadySeconds":5}}`, `{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}`, "- daemonset: spec",
	},
	{
		schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"},
		`{apiVersion: batch/v1, kind: CronJob, metadata: {name: bad, finalizers: [example.com/hold]}, spec: {suspend: true, schedule: "0 0 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, nodeName: ai-gone, volumes: [{name: etc, hostPath: {path: /etc}}], containers: [{name: a, image: a}]}}}}}}`,
		`{"spec":{"schedule":"1 0 * * *","jobTemplate":{"spec":{"backoffLimit":1}}}}`, `{"spec":{"jobTemplate":{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}}}`, "- host-path: spec.jobTemplate.spec.template.spec.volumes[0].hostPath",
	},
	{
		schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"},
		`{apiVersion: batch/v1, kind: Job, metadata: {name: bad, finalizers: [example.com/hold]}, spec: {suspend: true, template: {spec: {restartPolicy: Never, nodeName: ai-gone, volumes: [{name: etc, hostPath: {path: /etc}}], containers: [{name: a, image: a}]}}}}`,
		`{"spec":{"parallelism":2}}`, `{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}`, "- host-path: spec.template.spec.volumes[0].hostPath",
	},
}

// testViolatingKinds: what goes for a Deployment goes for every kind, and by the API
// server's own count nobody is even asked about a change beside the template.
func (c *cluster) testViolatingKinds(t *testing.T) {
	for _, v := range violations {
		before := c.calls(t)
		require.NoError(t, c.patch(t, v.at, "life", "bad", v.fine), v.at.Resource)
		require.NoError(t, c.patch(t, v.at, "life", "bad", `{"metadata":{"labels":{"team":"a"}}}`), v.at.Resource)
		for name, n := range c.calls(t) {
			if strings.Contains(name, "workloads") || strings.Contains(name, "cronjobs") { // a controller may make pods meanwhile
				require.Equal(t, before[name], n, "%s: %s", v.at.Resource, name)
			}
		}
		refused(t, c.patch(t, v.at, "life", "bad", v.bad), v.says)
		require.NoError(t, c.delete(t, v.at, "life", "bad"))
		require.NoError(t, c.patch(t, v.at, "life", "bad", `{"metadata":{"finalizers":null}}`), v.at.Resource)
		eventually(t, v.at.Resource+" is gone", func() error {
			_, err := c.any.Resource(v.at).Namespace("life").Get(t.Context(), "bad", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there: %w", err)
		})
	}
}

// testUngated: the API server takes a toleration at this moment and nothing else,
// so all else is told.
func (c *cluster) testUngated(t *testing.T) {
	pod, err := c.kube.CoreV1().Pods("life").Get(t.Context(), "gated", metav1.GetOptions{})
	require.NoError(t, err)
	require.NotContains(t, pod.Spec.Tolerations, contract.Toleration())
	out, err := c.run(t, "kubectl", "patch", "pod", "gated", "-n", "life", "--type=merge", "-p", `{"spec":{"schedulingGates":null}}`)
	require.NoError(t, err, out)
	require.Contains(t, out, "host-pid: spec.hostPID: would have been removed when the pod was made")
	require.Contains(t, out, "security-context: spec.containers[0].securityContext: would have been removed")
	require.NotContains(t, out, "takes away", "it stays")
	pod, err = c.kube.CoreV1().Pods("life").Get(t.Context(), "gated", metav1.GetOptions{})
	require.NoError(t, err)
	require.Contains(t, pod.Spec.Tolerations, contract.Toleration())
	require.True(t, pod.Spec.HostPID)
	entries, err := contract.ReadAnnotation(pod.Annotations[contract.AdmissionAnnotation])
	require.NoError(t, err)
	require.Equal(t, []contract.Entry{{Feature: "tolerations", Field: "spec.tolerations", Action: contract.Inject}}, entries)
	t.Log(out)
	require.NoError(t, c.delete(t, pods, "life", "gated"))
}

// testViolatingWorkload: it can do everything but get pods or a template as bad.
func (c *cluster) testViolatingWorkload(t *testing.T) {
	scale := func(n int) error {
		return c.patch(t, deployments, "life", "violating", fmt.Sprintf(`{"spec":{"replicas":%d}}`, n))
	}
	require.NoError(t, scale(1))
	eventually(t, "the ReplicaSet tells why there are no pods", func() error {
		d, err := c.kube.AppsV1().Deployments("life").Get(t.Context(), "violating", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range d.Status.Conditions {
			if condition.Type == "ReplicaFailure" && strings.Contains(condition.Message, "- host-path: spec.volumes[0].hostPath") {
				t.Log(condition.Message)
				return nil
			}
		}
		return fmt.Errorf("%v", d.Status.Conditions)
	})
	require.NoError(t, scale(0))
	require.NoError(t, c.patch(t, deployments, "life", "violating", `{"metadata":{"labels":{"team":"a"}}}`))
	refused(t, c.patch(t, deployments, "life", "violating", `{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}`),
		"- host-path: spec.template.spec.volumes[0].hostPath")
	require.NoError(t, c.delete(t, deployments, "life", "violating"))
	require.NoError(t, c.patch(t, deployments, "life", "violating", `{"spec":{"template":{"metadata":{"labels":{"v":"2"}}}}}`), "it is going: nobody judges it any more")
	require.NoError(t, c.patch(t, deployments, "life", "violating", `{"metadata":{"finalizers":null}}`))
	c.must(t, "wait", "--for=delete", "-n", "life", "deployment/violating", "--timeout=2m")
}

const stripped = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: stripped}
spec:
  selector: {matchLabels: {app: stripped}}
  template:
    metadata: {labels: {app: stripped, ainode.dev/schedule: "true"}}
    spec:
      hostNetwork: true
      hostPID: true
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000, runAsNonRoot: true}
      volumes:
      - {name: shm, hostPath: {path: /dev/shm}}
      - {name: scratch, emptyDir: {}}
      containers:
      - name: a
        image: demo.local/tools:v1
        command: [sh, -c, "grep ' /dev/shm tmpfs' /proc/mounts && sleep 3600"]
        ports: [{containerPort: 8000, hostPort: 8000}]
        volumeMounts: [{name: shm, mountPath: /dev/shm}, {name: scratch, mountPath: /scratch}]
`

// testAvailable: the ordinary node stands in for an AI node (see the package).
func (c *cluster) testAvailable(t *testing.T) {
	node := c.must(t, "get", "node", "-o", "jsonpath={.items[0].metadata.name}")
	require.NoError(t, c.patch(t, nodes, "", node, fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, contract.NodeLabel, contract.NodeLabelValue)))
	c.create(t, deployments, "life", stripped)
	c.must(t, "rollout", "status", "-n", "life", "deployment/stripped", "--timeout=2m")
	list, err := c.kube.CoreV1().Pods("life").List(t.Context(), metav1.ListOptions{LabelSelector: "app=stripped"})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	pod := list.Items[0]
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	require.False(t, pod.Spec.HostNetwork || pod.Spec.HostPID)
	require.Equal(t, &corev1.PodSecurityContext{}, pod.Spec.SecurityContext)
	require.Len(t, pod.Spec.Volumes, 1, "the shared memory alone")
	require.Equal(t, corev1.StorageMediumMemory, pod.Spec.Volumes[0].EmptyDir.Medium)
	require.False(t, *pod.Spec.AutomountServiceAccountToken)
	keys := map[string]int{}
	for _, toleration := range pod.Spec.Tolerations {
		keys[toleration.Key]++
	}
	require.Equal(t, map[string]int{contract.TaintKey: 1, corev1.TaintNodeNotReady: 1, corev1.TaintNodeUnreachable: 1}, keys)
	t.Log(pod.Annotations[contract.AdmissionAnnotation])

	// Not in the way of the owner: scaled, and gone when deleted.
	require.NoError(t, c.patch(t, deployments, "life", "stripped", `{"spec":{"replicas":2}}`))
	c.must(t, "rollout", "status", "-n", "life", "deployment/stripped", "--timeout=2m")
	require.NoError(t, c.delete(t, deployments, "life", "stripped"))
	c.must(t, "wait", "--for=delete", "pod", "-n", "life", "-l", "app=stripped", "--timeout=2m")
	_, err = c.any.Resource(nodes).Patch(t.Context(), node, types.JSONPatchType,
		[]byte(`[{"op":"remove","path":"/metadata/labels/alibabacloud.com~1virtual-node"}]`), metav1.PatchOptions{})
	require.NoError(t, err)
}
