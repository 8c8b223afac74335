package v1alpha1_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// rules are those of the AINode's CRD, judged as the API server judges them.
func rules(t *testing.T) func(t *testing.T, before, after string) field.ErrorList {
	t.Helper()
	raw, err := os.ReadFile("../../charts/ainode/files/crds/ainode.dev_ainodes.yaml")
	require.NoError(t, err)
	var crd apiextensionsv1.CustomResourceDefinition
	require.NoError(t, yaml.UnmarshalStrict(raw, &crd))
	var props apiextensions.JSONSchemaProps
	require.NoError(t, apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil))
	structural, err := schema.NewStructural(&props)
	require.NoError(t, err)
	validator := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	return func(t *testing.T, before, after string) field.ErrorList {
		t.Helper()
		object := func(text string) (o map[string]any) {
			raw, err := yaml.YAMLToJSON([]byte(`{apiVersion: ainode.dev/v1alpha1, kind: AINode, metadata: {name: ai-1}, ` + text + `}`))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(raw, &o))
			for _, part := range []string{"spec", "status"} { // numbers as an API server has them
				part, _ := o[part].(map[string]any)
				for k, v := range part {
					if n, ok := v.(float64); ok {
						part[k] = int64(n)
					}
				}
			}
			return o
		}
		errs, _ := validator.Validate(t.Context(), nil, structural, object(after), object(before), celconfig.RuntimeCELCostBudget)
		return errs
	}
}

// Range and address of a binding stand while it does. Only a hub that was restored, from
// before the node was bound anew, learns those of the binding that the machine serves.
func TestABindingKeepsItsRangeAndItsAddress(t *testing.T) {
	t.Parallel()
	check := rules(t)
	const (
		bound  = `spec: {clusterConfigName: c, bindEpoch: 3, sinceEpoch: 3}, status: {bindStatus: Bound, observedEpoch: 3}`
		behind = `spec: {clusterConfigName: c, bindEpoch: 3, sinceEpoch: 3}, status: {bindStatus: Bound, observedEpoch: 5}`
		ranged = `spec: {clusterConfigName: c, bindEpoch: 3, sinceEpoch: 3, podCIDR: 10.64.3.0/24, address: 10.9.0.7}, status: {bindStatus: Bound, observedEpoch: 5}`
	)
	for _, field := range []string{"podCIDR: 10.64.3.0/24", "address: 10.9.0.7"} {
		is := func(config, epoch string) string {
			return `spec: {clusterConfigName: ` + config + `, bindEpoch: ` + epoch + `, sinceEpoch: 3, ` + field + `}`
		}
		require.ErrorContains(t, check(t, bound, is("c", "3")).ToAggregate(), "a bound AI node keeps its")
		require.ErrorContains(t, check(t, bound, is("c", "4")).ToAggregate(), "a bound AI node keeps its")
		require.ErrorContains(t, check(t, behind, is("c", "4")).ToAggregate(), "a bound AI node keeps its", "4 is not what is served")
		require.ErrorContains(t, check(t, behind, is("c", "6")).ToAggregate(), "a bound AI node keeps its")
		require.ErrorContains(t, check(t, behind, is("other", "5")).ToAggregate(), "bound elsewhere only after unbinding")
		require.NoError(t, check(t, behind, is("c", "5")).ToAggregate(), "what the machine serves is learnt")
	}
	require.NoError(t, check(t, ranged, `spec: {clusterConfigName: c, bindEpoch: 5, sinceEpoch: 3}`).ToAggregate(), "also that there is none")
	require.ErrorContains(t, check(t, ranged, `spec: {clusterConfigName: c, bindEpoch: 4, sinceEpoch: 3}`).ToAggregate(), "a bound AI node keeps its")
	require.NoError(t, check(t, ranged, `spec: {bindEpoch: 3}`).ToAggregate(), "it is unbound")
	require.NoError(t, check(t, `spec: {bindEpoch: 3}, status: {bindStatus: Unbound}`, `spec: {clusterConfigName: c, bindEpoch: 4, address: 10.9.0.7}`).ToAggregate())
}
