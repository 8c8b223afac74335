package contract_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// leftAlone are the fields that no row claims, and why that is right. A field that
// a newer Kubernetes adds is in neither: the test below is red until somebody
// decides.
var leftAlone = map[string]string{
	"PodSpec.Containers":                    "judged container by container",
	"PodSpec.EphemeralContainers":           "judged like containers; they come through a subresource, the agent's matter",
	"PodSpec.RestartPolicy":                 "works",
	"PodSpec.TerminationGracePeriodSeconds": "works",
	"PodSpec.ActiveDeadlineSeconds":         "works",
	"PodSpec.ServiceAccountName":            "names an identity that is never handed to the pod",
	"PodSpec.DeprecatedServiceAccount":      "the same under its old name",
	"PodSpec.ShareProcessNamespace":         "inside the pod",
	"PodSpec.Hostname":                      "inside the pod",
	"PodSpec.Subdomain":                     "the cluster's DNS, not the node's",
	"PodSpec.HostnameOverride":              "inside the pod",
	"PodSpec.SetHostnameAsFQDN":             "inside the pod",
	"PodSpec.HostAliases":                   "inside the pod",
	"PodSpec.SchedulerName":                 "the scheduler's",
	"PodSpec.PriorityClassName":             "the scheduler's",
	"PodSpec.Priority":                      "the scheduler's",
	"PodSpec.PreemptionPolicy":              "the scheduler's",
	"PodSpec.SchedulingGates":               "the scheduler's; ungating is a moment of its own",
	"PodSpec.SchedulingGroup":               "the scheduler's",
	"PodSpec.ReadinessGates":                "conditions that others write",
	"PodSpec.EvictionResponders":            "the eviction API's",
	"PodSpec.OS":                            "the scheduler's; AI nodes run Linux",
	"PodSpec.Resources":                     "CPU and memory of the whole pod; the API server refuses GPUs there",

	"Container.Name":                     "works",
	"Container.Image":                    "works",
	"Container.WorkingDir":               "inside the container",
	"Container.ResizePolicy":             "CPU and memory in place",
	"Container.RestartPolicy":            "works",
	"Container.RestartPolicyRules":       "works",
	"Container.Lifecycle":                "works",
	"Container.TerminationMessagePath":   "works",
	"Container.TerminationMessagePolicy": "works",
	"Container.ImagePullPolicy":          "works",
	"Container.Stdin":                    "works",
	"Container.StdinOnce":                "works",
	"Container.TTY":                      "works",

	"EphemeralContainer.EphemeralContainerCommon": "judged field by field",
	"EphemeralContainer.TargetContainerName":      "inside the pod",

	"Volume.Name":         "works",
	"Volume.VolumeSource": "judged type by type",
}

func TestEveryFieldIsClaimedOrNamed(t *testing.T) {
	t.Parallel()
	claims := map[string]contract.Feature{}
	for _, row := range contract.Table {
		for _, c := range row.Claims {
			claims[c] = row.Feature
		}
	}
	used := map[string]bool{}
	claimed := func(name string) bool {
		typed := name[:strings.Index(name, ".")] + ".*"
		for _, key := range []string{name, typed} {
			if _, ok := claims[key]; ok {
				used[key] = true
				return true
			}
		}
		return false
	}
	for _, v := range []any{
		corev1.PodSpec{}, corev1.Container{}, corev1.EphemeralContainer{}, corev1.EphemeralContainerCommon{}, corev1.Volume{},
		corev1.VolumeSource{}, corev1.VolumeProjection{}, corev1.SecurityContext{}, corev1.PodSecurityContext{}, corev1.ResourceRequirements{},
	} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			name := typ.Name() + "." + typ.Field(i).Name
			alone := name
			if typ.Name() == "EphemeralContainerCommon" {
				alone = "Container." + typ.Field(i).Name // the same fields
			}
			_, named := leftAlone[alone]
			is := claimed(name)
			used[alone] = used[alone] || named
			if typ.Name() == "ResourceRequirements" && !is {
				continue // limits and requests are Container.Resources'
			}
			require.True(t, is || named, "%s is new: give it a row of the table or name it in leftAlone", name)
			require.False(t, is && named, "%s is claimed and named as left alone", name)
		}
	}
	for name := range leftAlone {
		require.True(t, used[name], "%s is left alone, and no field of Kubernetes", name)
	}
	for name := range claims {
		require.True(t, used[name], "%s is claimed, and no field of Kubernetes", name)
	}
}

// What a row claims is what its rule decodes: a claim on a field that the
// projection does not have would be an empty promise.
func TestSupportedVolumesAreVolumes(t *testing.T) {
	t.Parallel()
	var names []string
	typ := reflect.TypeOf(corev1.VolumeSource{})
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	require.Subset(t, names, []string{"configMap", "secret", "persistentVolumeClaim", "projected", "downwardAPI", "emptyDir", "hostPath"})
	require.False(t, slices.Contains(names, ""))
}
