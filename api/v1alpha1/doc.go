// Package v1alpha1 holds the records that live on the hub: AINode and
// ClusterConfig (both cluster-scoped, group ainode.dev).
//
// +kubebuilder:object:generate=true
// +groupName=ainode.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is ainode.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "ainode.dev", Version: "v1alpha1"}

// AddToScheme registers AINode and ClusterConfig.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&AINode{}, &AINodeList{},
		&ClusterConfig{}, &ClusterConfigList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
