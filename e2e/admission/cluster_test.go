package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/e2e/story"
)

const (
	system      = contract.SystemNamespace
	webhookPods = "app.kubernetes.io/component=webhook"
	tools       = "demo.local/tools:v1"
)

var (
	pods        = corev1.SchemeGroupVersion.WithResource("pods")
	nodes       = corev1.SchemeGroupVersion.WithResource("nodes")
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	ainodes     = v1alpha1.GroupVersion.WithResource("ainodes")
	configs     = v1alpha1.GroupVersion.WithResource("clusterconfigs")

	dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
)

// cluster is the API server as somebody sees it: the administrator, or who is
// impersonated.
type cluster struct {
	*story.Story
	config *rest.Config
	kube   kubernetes.Interface
	any    dynamic.Interface
}

func newCluster(t *testing.T, s *story.Story) *cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	require.NoError(t, err)
	config.QPS = -1
	config.WarningHandlerWithContext = warnings{}
	return clients(t, s, config)
}

func clients(t *testing.T, s *story.Story, config *rest.Config) *cluster {
	t.Helper()
	c := &cluster{Story: s, config: config}
	var err error
	c.kube, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)
	c.any, err = dynamic.NewForConfig(config)
	require.NoError(t, err)
	return c
}

// as is the cluster as another sees it.
func (c *cluster) as(t *testing.T, user string, groups ...string) *cluster {
	t.Helper()
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	return clients(t, c.Story, config)
}

// asNode is the cluster as a node sees it.
func (c *cluster) asNode(t *testing.T, name string) *cluster {
	t.Helper()
	return c.as(t, "system:node:"+name, "system:nodes")
}

type warningsKey struct{}

// warnings gathers the Warning headers of one call in its context.
type warnings struct{}

func (warnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _, text string) {
	if gathered, ok := ctx.Value(warningsKey{}).(*[]string); ok {
		*gathered = append(*gathered, text)
	}
}

// answer is what came of one dry run.
type answer struct {
	object   map[string]any
	warnings []string
	err      error
}

// try creates an object by server dry run.
func (c *cluster) try(ctx context.Context, resource schema.GroupVersionResource, namespace string, object map[string]any) answer {
	var a answer
	ctx = context.WithValue(ctx, warningsKey{}, &a.warnings)
	stored, err := c.any.Resource(resource).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: object}, dryRun)
	slices.Sort(a.warnings)
	a.warnings = slices.Compact(a.warnings)
	if a.err = err; err == nil {
		a.object = stored.Object
	}
	return a
}

// create creates an object in YAML for good.
func (c *cluster) create(t *testing.T, resource schema.GroupVersionResource, namespace, text string, args ...any) *unstructured.Unstructured {
	t.Helper()
	stored, err := c.any.Resource(resource).Namespace(namespace).
		Create(t.Context(), &unstructured.Unstructured{Object: object(t, text, args...)}, metav1.CreateOptions{})
	require.NoError(t, err)
	return stored
}

// patch merges a change in.
func (c *cluster) patch(t *testing.T, resource schema.GroupVersionResource, namespace, name, change string, subresources ...string) error {
	t.Helper()
	_, err := c.any.Resource(resource).Namespace(namespace).
		Patch(t.Context(), name, types.MergePatchType, []byte(change), metav1.PatchOptions{}, subresources...)
	return err
}

func (c *cluster) delete(t *testing.T, resource schema.GroupVersionResource, namespace, name string) error {
	t.Helper()
	return c.any.Resource(resource).Namespace(namespace).Delete(t.Context(), name, metav1.DeleteOptions{})
}

// must runs kubectl and demands that it ends with 0.
func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	require.NoError(t, err)
	return out
}

// namespace makes a namespace and waits for its default service account.
func (c *cluster) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the default service account of "+name, func() error {
		_, err := c.kube.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
}

// refused demands that the API server refuses with words that contain all of say.
func refused(t *testing.T, err error, say ...string) {
	t.Helper()
	require.Error(t, err)
	require.True(t, apierrors.IsForbidden(err) || apierrors.IsInvalid(err), "%v", err)
	for _, words := range say {
		require.Contains(t, err.Error(), words)
	}
}

// eventually asks until there is no error, for two minutes.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes: %v", what, err)
		}
		<-tick.C
	}
}

// object is YAML as the dynamic client takes it.
func object(t *testing.T, text string, args ...any) map[string]any {
	t.Helper()
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	var o map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &o))
	return o
}

var (
	randomVolume = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)
	randomUID    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`) // a Job's labels
)

// stored is an object without what differs from one dry run to the next.
func stored(t *testing.T, o map[string]any) string {
	t.Helper()
	raw, err := json.MarshalIndent(o, "", " ")
	require.NoError(t, err)
	var copied map[string]any
	require.NoError(t, json.Unmarshal(raw, &copied))
	if metadata, ok := copied["metadata"].(map[string]any); ok {
		for _, field := range []string{"uid", "creationTimestamp", "managedFields", "generation"} {
			delete(metadata, field)
		}
		// The annotation's old values have the API server's order of fields or ours.
		if annotations, ok := metadata["annotations"].(map[string]any); ok {
			var entries any
			if text, ok := annotations[contract.AdmissionAnnotation].(string); ok && json.Unmarshal([]byte(text), &entries) == nil {
				sorted, err := json.Marshal(entries)
				require.NoError(t, err)
				annotations[contract.AdmissionAnnotation] = string(sorted)
			}
		}
	}
	raw, err = json.MarshalIndent(copied, "", " ")
	require.NoError(t, err)
	return randomUID.ReplaceAllString(randomVolume.ReplaceAllString(string(raw), "kube-api-access-x"), "uid")
}

// tellWhatStands prints what one would look at by hand after a failure.
func (c *cluster) tellWhatStands(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	for _, args := range [][]string{
		{"get", "pods,deployments,nodes", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", system, "-l", webhookPods, "--tail=30", "--prefix"},
	} {
		out, err := c.Kubectl(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
