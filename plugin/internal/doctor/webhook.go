package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/kube"
)

var webhookChecks = []check{
	{"webhook", Webhook, standing | before, webhookThere},
	{"webhook-replicas", Webhook, standing, webhookReplicas},
	{"webhook-answers", Webhook, standing | before, webhookAnswers},
}

// deployment is the webhook's, as the chart names it.
const deployment = "ainode-webhook"

// registered reports whether the API server has been told of the webhook.
func (s *sight) registered(ctx context.Context) (bool, error) {
	hooks, err := s.Target.Core.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, h := range hooks.Items {
		for _, hook := range h.Webhooks {
			if service := hook.ClientConfig.Service; service != nil && service.Namespace == contract.SystemNamespace {
				return true, nil
			}
		}
	}
	return false, nil
}

func webhookThere(ctx context.Context, s *sight) (string, []flaw, error) {
	there, err := s.registered(ctx)
	if err != nil {
		return "", nil, err
	}
	if there {
		return "the API server knows it", nil, nil
	}
	severity := Error
	if s.Before {
		severity = Warning // it may come after the node
	}
	return one(severity, "the target has no AI-node webhook",
		"pods won't be fitted to AI nodes, and nobody approves the agents' serving certificates (kubectl logs and exec need them)",
		fix("Install it there", "helm install ainode charts/ainode --namespace %s --create-namespace", contract.SystemNamespace))
}

func webhookReplicas(ctx context.Context, s *sight) (string, []flaw, error) {
	d, err := s.Target.Core.AppsV1().Deployments(contract.SystemNamespace).Get(ctx, deployment, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil, nil // installed another way; whether it answers is seen next
	}
	if err != nil {
		return "", nil, err
	}
	look := fix("See why", "kubectl -n %s describe pods", contract.SystemNamespace)
	wanted, there := ptr.Deref(d.Spec.Replicas, 1), d.Status.AvailableReplicas
	switch {
	case there == 0:
		return one(Error, fmt.Sprintf("none of %d replicas is available", wanted), "AI nodes' pods can't be created until one is", look)
	case there < wanted:
		return one(Warning, fmt.Sprintf("%d of %d replicas are available", there, wanted), "the loss of one more stops AI nodes' pods from being created", look)
	}
	return fmt.Sprintf("%d of %d replicas are available", there, wanted), nil, nil
}

// webhookAnswers creates an AI node's pod as a dry run: what comes back tells
// whether the API server reaches the webhook, and takes its word.
func webhookAnswers(ctx context.Context, s *sight) (string, []flaw, error) {
	if there, err := s.registered(ctx); err != nil || !there {
		return "", nil, nil // the check "webhook" says so
	}
	answer, err := s.Target.Core.CoreV1().Pods(metav1.NamespaceDefault).Create(kube.Quietly(ctx), trial(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil && strings.Contains(err.Error(), "failed calling webhook") {
		return one(Error, "the API server can't reach it: "+err.Error(), "AI nodes' pods can't be created",
			fix("See how it does", "kubectl -n %s logs deployment/%s", contract.SystemNamespace, deployment))
	}
	if err != nil {
		return "", nil, fmt.Errorf("create a pod as a dry run: %w", err)
	}
	if !slices.ContainsFunc(answer.Spec.Tolerations, contract.Tolerates) {
		return one(Error, "a pod that asks for an AI node was not given the toleration", "such pods stay Pending, and nothing says why",
			fix("See what it is called for", "kubectl get mutatingwebhookconfigurations %s -o yaml", deployment))
	}
	return "a pod that asks for an AI node is given the toleration (dry run)", nil, nil
}

// trial is a pod that any namespace takes, Pod Security restricted too.
func trial() *corev1.Pod {
	few := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "ainode-doctor-"},
		Spec: corev1.PodSpec{
			NodeSelector:                 map[string]string{contract.NodeLabel: contract.NodeLabelValue},
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(65534)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "trial", Image: "registry.k8s.io/pause:3.10",
				Resources: corev1.ResourceRequirements{Requests: few, Limits: few},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}
