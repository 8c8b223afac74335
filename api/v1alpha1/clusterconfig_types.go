package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ClusterConfig is an imported cluster that AI nodes can be bound to. It holds no
// credential: bind and unbind act with the rights of the person who types them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=clusterconfigs,scope=Cluster,shortName=aicc
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.spec.server`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.kubernetesVersion`
// +kubebuilder:printcolumn:name="Bound",type=string,JSONPath=`.status.boundNodes`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ClusterConfigSpec   `json:"spec"`
	Status ClusterConfigStatus `json:"status,omitempty"`
}

// ClusterConfigSpec says which cluster it is and how an AI node reaches it.
//
// +kubebuilder:validation:XValidation:rule="self.clusterUID == oldSelf.clusterUID",message="a config is of one cluster: import the other one under another name"
type ClusterConfigSpec struct {
	// Server is the API server's URL as the AI nodes reach it.
	//
	// +kubebuilder:validation:Pattern=`^https://.+`
	Server string `json:"server"`
	// TLSServerName replaces the host of Server in certificate checks, where it
	// differs.
	//
	// +optional
	TLSServerName string `json:"tlsServerName,omitempty"`
	// CertificateAuthorityData is the PEM of the API server's CA (base64 in JSON).
	CertificateAuthorityData []byte `json:"certificateAuthorityData"`
	// ClusterUID is the UID of the kube-system namespace: a cluster's identity,
	// whatever address it answers at.
	ClusterUID string `json:"clusterUID"`
}

// ClusterConfigStatus is kept by bind and unbind.
type ClusterConfigStatus struct {
	// BoundNodes are the AI nodes bound under this config. bind's first write adds
	// the name, unbind's last removes it; the config can't be deleted while any is
	// left.
	//
	// +optional
	// +listType=set
	BoundNodes []string `json:"boundNodes,omitempty"`
	// KubernetesVersion as the API server said at import.
	//
	// +optional
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
}

// ClusterConfigList is a list of ClusterConfigs.
//
// +kubebuilder:object:root=true
type ClusterConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterConfig `json:"items"`
}
