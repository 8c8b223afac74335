package objects

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func named(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, ResourceVersion: "7", UID: "u", Labels: map[string]string{"app": name},
			Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip}, Selector: map[string]string{"app": name}, Type: corev1.ServiceTypeNodePort,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("web"), NodePort: 30080}},
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}},
	}
}

func (s *Services) names(t *testing.T, namespace string) (names []string) {
	t.Helper()
	found, err := s.Of(namespace)
	require.NoError(t, err)
	for _, f := range found {
		names = append(names, f.Namespace+"/"+f.Name)
	}
	return names
}

func TestServicesAreReadOnceAndFollowed(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(named("default", "kubernetes", "10.96.0.1"), named("default", "other", "10.96.0.2"), named("ns", "web", "10.96.0.3"))
	services, err := NewServices(client)
	require.NoError(t, err)
	select {
	case <-services.Read():
		t.Fatal("nobody has read them")
	default:
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = services.Run(ctx) }()
	<-services.Read()
	require.ElementsMatch(t, []string{"default/kubernetes", "ns/web"}, services.names(t, "ns"))
	require.ElementsMatch(t, []string{"default/kubernetes", "default/other"}, services.names(t, "default"))
	require.Equal(t, []string{"default/kubernetes"}, services.names(t, "empty"))

	require.Eventually(t, func() bool { return watches(client, "services") == 1 }, patience, time.Millisecond)
	require.NoError(t, client.CoreV1().Services("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	_, err = client.CoreV1().Services("ns").Create(t.Context(), named("ns", "new", "10.96.0.4"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		names := services.names(t, "ns")
		return len(names) == 2 && (names[0] == "ns/new" || names[1] == "ns/new")
	}, patience, time.Millisecond)
	require.Equal(t, 1, watches(client, "services"), "one watch for all pods")
	for _, action := range client.Actions() {
		if list, ok := action.(clienttesting.ListAction); ok {
			require.Equal(t, "spec.clusterIP!=None", list.GetListRestrictions().Fields.String(), "the API server leaves the headless out")
		}
	}
	stop()
	<-ended
}

func TestOnlyWhatContainersAreToldIsKept(t *testing.T) {
	t.Parallel()
	kept, err := essence(named("ns", "web", "10.96.0.3"))
	require.NoError(t, err)
	require.Equal(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", ResourceVersion: "7"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.3", Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}},
	}, kept)
	again, err := essence(kept) // an informer may ask twice
	require.NoError(t, err)
	require.Equal(t, kept, again)
	var other runtime.Object = &corev1.Pod{}
	same, err := essence(other)
	require.NoError(t, err)
	require.Same(t, other, same)
}
