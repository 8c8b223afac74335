package contract

// Feature is the id of one row of the support table. Ids are API: they stand in
// warnings, the annotation, explain, overrides, metrics and the docs.
type Feature string

// Action is what happens to a field, and as a mode what is to happen to every
// field that a row finds.
type Action string

// The actions. A row's default is the most telling of what it does; the row's
// text says the rest.
const (
	// Allow leaves the field alone and says nothing.
	Allow Action = "allow"
	// Warn leaves the field alone and tells.
	Warn Action = "warn"
	// Inject adds something that the pod needs on an AI node.
	Inject Action = "inject"
	// Normalise turns the field into what AI nodes have.
	Normalise Action = "normalise"
	// Strip removes the field.
	Strip Action = "strip"
	// Deny refuses the pod.
	Deny Action = "deny"
)

// changes reports whether a changes the pod.
func (a Action) changes() bool { return a == Inject || a == Normalise || a == Strip }

// Row is one rule of the contract: what the vendor's page says of a feature, what
// we do about it, and why.
type Row struct {
	Feature Feature
	// Vendor is what the vendor's page says.
	Vendor string
	// Default is what the profile aliclouddb does, Agent what the profile agent does.
	Default Action
	Agent   Action
	// Overrides are the modes that a policy may set instead.
	Overrides []Action
	// Text says what happens and why, for SUPPORT.md and explain.
	Text string
	// Fix says what to write instead; there where a pod may be changed, told or refused.
	Fix string
	// NotYet is what of the promise our node agent does not keep yet, for
	// SUPPORT.md and explain; empty where all of it is there.
	NotYet string
	// Claims are the fields that the row speaks for, as Type.Field of the core API.
	Claims []string

	places bool          // part of Place; else part of Strip
	rule   func(*review) // nil where there is nothing in a pod to look at
}

// Meaning says what a mode does.
func (a Action) Meaning() string { return meanings[a] }

var meanings = map[Action]string{
	Allow: "left alone", Warn: "left alone and told", Inject: "added, and told",
	Normalise: "turned into what AI nodes have, and told", Strip: "removed, and told", Deny: "refused",
}

// Table is the support table, in the order in which its rules look at a pod: a
// volume that one rule removes is no matter of the next.
var Table = []Row{
	{
		Feature: "placement", Vendor: "by nodeSelector or nodeName",
		Default: Inject, Agent: Inject, Overrides: []Action{Warn},
		Text:   "A pod that opts in by label gets the AI nodes' nodeSelector. The others already say where they go.",
		Fix:    "nothing needs to be written; to be exact, write the nodeSelector yourself",
		Claims: []string{"PodSpec.NodeSelector", "PodSpec.NodeName"},
		places: true, rule: placement,
	},
	{
		Feature: "tolerations", Vendor: "the node brings its own taint",
		Default: Inject, Agent: Inject,
		Text: "The toleration of the AI nodes' taint is added unless an existing one tolerates the taint by Kubernetes' own rule; wider ones count. " +
			"With the chart value admission.unreachableSeconds, the API server's 300 s for nodes that are not ready or unreachable become longer; off.",
		Fix:    "nothing needs to be written",
		Claims: []string{"PodSpec.Tolerations"},
		places: true, rule: tolerations,
	},
	{
		Feature: "gpu", Vendor: "whole cards, in limits and requests",
		Default: Inject, Agent: Inject,
		Text: "Whole cards, the same in limits and requests. A side that is missing is copied from the other; " +
			"both set and unequal, fractions, negatives and what is no number: refused. MIG slices are counted alike. " +
			"The label " + GPUsLabel + ": \"N\" puts N cards into the first container where no container asks for any.",
		Fix:    "write the same whole number of cards in resources.limits and resources.requests",
		Claims: []string{"Container.Resources", "EphemeralContainerCommon.Resources"},
		places: true, rule: gpu,
	},
	{
		Feature: "daemonset", Vendor: "unsupported",
		Default: Deny, Agent: Deny, Overrides: []Action{Allow, Warn},
		Text: "A DaemonSet that selects AI nodes is refused. One that only tolerates everything is none of the webhook's business: " +
			"check and doctor tell of it, and the agent leaves its pods Pending, quietly.",
		Fix:  "use a Deployment or StatefulSet, or keep the DaemonSet off AI nodes by a node affinity",
		rule: daemonSet,
	},
	{
		Feature: "host-network", Vendor: "unsupported",
		Default: Strip, Agent: Strip, Overrides: []Action{Deny},
		Text:   "Removed, with the hostPorts that the API server filled in because of it: the AI node's network is not the cluster's.",
		Fix:    "remove it; the pod is reached at its podIP",
		Claims: []string{"PodSpec.HostNetwork"},
		rule:   hostNetwork,
	},
	{
		Feature: "host-port", Vendor: "no real port mapping on the node",
		Default: Strip, Agent: Strip, Overrides: []Action{Deny},
		Text:   "hostPort and hostIP are removed; the containerPort answers at the podIP.",
		Fix:    "remove it and call the containerPort at the podIP",
		Claims: []string{"Container.Ports", "EphemeralContainerCommon.Ports"},
		rule:   hostPort,
	},
	{
		Feature: "host-pid", Vendor: "unsupported",
		Default: Strip, Agent: Strip, Overrides: []Action{Deny},
		Text:   "Removed: a pod sees its own processes only.",
		Fix:    "remove it",
		Claims: []string{"PodSpec.HostPID"},
		rule:   hostPID,
	},
	{
		Feature: "host-ipc", Vendor: "unsupported",
		Default: Strip, Agent: Strip, Overrides: []Action{Deny},
		Text:   "Removed: a pod has its own IPC namespace.",
		Fix:    "remove it; share memory between containers by an emptyDir with medium: Memory",
		Claims: []string{"PodSpec.HostIPC"},
		rule:   hostIPC,
	},
	{
		Feature: "security-context", Vendor: "unsupported",
		Default: Strip, Agent: Strip, Overrides: []Action{Allow, Warn, Deny},
		Text: "Removed from the pod and its containers; where that takes away a protection, the warning says which. " +
			"Kept in a namespace that enforces Pod Security restricted: the pod would be refused without it, and the agent honours it. " +
			"The profile agent removes only what raises privilege. hostUsers: false is never touched.",
		Fix: "remove it, and let the image name the user it runs as",
		Claims: []string{"PodSpec.SecurityContext", "Container.SecurityContext", "EphemeralContainerCommon.SecurityContext",
			"PodSpec.HostUsers", "SecurityContext.*", "PodSecurityContext.*"},
		rule: securityContext,
	},
	{
		Feature: "service-account-token", Vendor: "ConfigMap and Secret yes, service-account tokens no",
		Default: Strip, Agent: Strip, Overrides: []Action{Allow, Warn, Deny},
		Text: "The automounted token volume and its mounts go, and automountServiceAccountToken: false is set. " +
			"Of a user's projected volume only the token goes, the other sources stay. A Secret volume counts as a token only where it is mounted at the service-account path. " +
			"In the profile agent, pods of the namespaces in the chart value admission.tokenNamespaces keep their tokens; AI nodes are given none for others.",
		Fix:    "set automountServiceAccountToken: false; bring a credential of your own in a Secret where one is needed",
		Claims: []string{"PodSpec.AutomountServiceAccountToken", "VolumeProjection.ServiceAccountToken"},
		rule:   serviceAccountToken,
	},
	{
		Feature: "host-path", Vendor: "unsupported",
		Default: Deny, Agent: Deny,
		Text: "The host's /dev/shm or a folder below it becomes a memory emptyDir, which is what it was used for. Any other path is refused: " +
			"no pod reaches the machine's files.",
		Fix:    "use a PersistentVolumeClaim, a ConfigMap or the image; for shared memory an emptyDir with medium: Memory",
		Claims: []string{"VolumeSource.HostPath"},
		rule:   hostPath,
	},
	{
		Feature: "empty-dir", Vendor: "unsupported, yet its example uses medium: Memory",
		Default: Strip, Agent: Allow, Overrides: []Action{Allow, Warn, Deny},
		Text: "Memory stays. On disk: removed where one container mounts it (the path is then the container's own layer, " +
			"it must exist in the image and be writable); turned into memory where several share it, at or below /dev/shm, and in namespaces " +
			"that enforce Pod Security restricted. Huge pages are refused. The profile agent keeps emptyDirs on disk.",
		Fix:    "set medium: Memory with a sizeLimit, or use a PersistentVolumeClaim",
		Claims: []string{"VolumeSource.EmptyDir"},
		rule:   emptyDir,
	},
	{
		Feature: "volume-types", Vendor: "part of the storage resources",
		Default: Deny, Agent: Deny,
		Text: "ConfigMap, Secret, PersistentVolumeClaim, projected (source by source) and downwardAPI are there. Every other type is refused, raw block devices too.",
		Fix:  "use a PersistentVolumeClaim with volumeMode: Filesystem, or take the data into the image",
		Claims: []string{"PodSpec.Volumes", "Container.VolumeMounts", "Container.VolumeDevices",
			"EphemeralContainerCommon.VolumeMounts", "EphemeralContainerCommon.VolumeDevices",
			"VolumeSource.*", "VolumeProjection.*"},
		rule: volumeTypes,
	},
	{
		Feature: "resource-claims", Vendor: "not mentioned",
		Default: Deny, Agent: Deny,
		Text:   "Dynamic resource allocation is refused: ask for GPUs in limits.",
		Fix:    "ask for GPUs in resources.limits",
		Claims: []string{"PodSpec.ResourceClaims", "ResourceRequirements.Claims"},
		rule:   resourceClaims,
	},
	{
		Feature: "runtime-class", Vendor: "not mentioned",
		Default: Strip, Agent: Strip, Overrides: []Action{Deny},
		Text: "nvidia, nvidia-cdi and nvidia-legacy are removed with the overhead that came with them: AI nodes give GPUs without a runtime class. " +
			"Others are refused.",
		Fix:    "remove runtimeClassName",
		Claims: []string{"PodSpec.RuntimeClassName", "PodSpec.Overhead"},
		rule:   runtimeClass,
	},
	{
		Feature: "dns", Vendor: "default servers; names of the cluster through dnsConfig",
		Default: Normalise, Agent: Normalise, Overrides: []Action{Allow, Warn},
		Text: "ClusterFirst, ClusterFirstWithHostNet and no dnsPolicy become Default, or None with the configured nameservers where the pod names none itself. " +
			"None, Default and the pod's dnsConfig stay.",
		Fix:    "set dnsPolicy: Default, or None with a dnsConfig",
		Claims: []string{"PodSpec.DNSPolicy", "PodSpec.DNSConfig"},
		rule:   dns,
	},
	{
		Feature: "service-access", Vendor: "a pod cannot call Services",
		Default: Warn, Agent: Warn, Overrides: []Action{Allow},
		Text: "Told where an env value, an argument or a command holds a .svc host name or $(…_SERVICE_HOST). " +
			"The variables themselves are there as on a kubelet, and enableServiceLinks works.",
		Fix: "use an address that is reached from outside the cluster",
		Claims: []string{"Container.Env", "Container.Command", "Container.Args", "EphemeralContainerCommon.Env",
			"EphemeralContainerCommon.Command", "EphemeralContainerCommon.Args", "PodSpec.EnableServiceLinks"},
		rule: serviceAccess,
	},
	{
		Feature: "pod-affinity", Vendor: "only the AI node's own topology",
		Default: Warn, Agent: Warn, Overrides: []Action{Allow},
		Text:   "Allowed; a topologyKey that AI nodes do not carry is told.",
		Fix:    "use the topology of the host name, the zone or the region",
		Claims: []string{"PodSpec.Affinity"},
		rule:   podAffinity,
	},
	{
		Feature: "topology-spread", Vendor: "only the AI node's own topology",
		Default: Warn, Agent: Warn, Overrides: []Action{Allow},
		Text:   "Allowed; a topologyKey that AI nodes do not carry is told.",
		Fix:    "use the topology of the host name, the zone or the region",
		Claims: []string{"PodSpec.TopologySpreadConstraints"},
		rule:   topologySpread,
	},
	{
		Feature: "node-affinity", Vendor: "only onto AI nodes",
		Default: Allow, Agent: Allow,
		Text:   "Works. A required affinity for the AI nodes' label makes a pod an AI node's pod.",
		Claims: []string{"PodSpec.Affinity"},
	},
	{
		Feature: "network-policy", Vendor: "not enforced",
		Default: Allow, Agent: Allow,
		Text: "NetworkPolicies do not reach pods on AI nodes. Told by check, doctor and bind's preflight (it takes a look-up, and the webhook makes none).",
		Fix:  "guard the pods by the network that the AI nodes are in",
	},
	{
		Feature: "pod-disruption-budget", Vendor: "does not protect pods on AI nodes",
		Default: Allow, Agent: Allow,
		Text: "Told by check. Our own unbind evicts and honours the budget unless it is told otherwise.",
	},
	{
		Feature: "labels", Vendor: "the user's are ignored",
		Default: Allow, Agent: Allow,
		Text: "Kept on the API object, since controllers select and own by them; passed below it only where the pod itself asks (downward API).",
	},
	{
		Feature: "annotations", Vendor: "the user's are ignored",
		Default: Allow, Agent: Allow,
		Text: "Kept on the API object, passed below it only where the pod itself asks (downward API).",
	},
	allowed("deployment", "Deployments work."),
	allowed("statefulset", "StatefulSets work."),
	allowed("pod", "Pods work: create, delete, status."),
	allowed("pod-ip", "A pod has the address that its AI node has in the cluster's network; where the node was bound with a range (bind --pod-cidr), one of its own from it."),
	allowed("service-endpoint", "A pod can be the endpoint of a Service and is called through it."),
	allowed("config-map", "As volume and as environment.", "Container.EnvFrom", "EphemeralContainerCommon.EnvFrom", "VolumeSource.ConfigMap", "VolumeProjection.ConfigMap"),
	allowed("secret", "As volume and as environment; as pull secret.", "PodSpec.ImagePullSecrets", "VolumeSource.Secret", "VolumeProjection.Secret"),
	allowed("persistent-volume-claim", "Claims bound to a volume of driver "+OSSDriver+" (object storage), by the machine's ossfs or s3fs; what is read is kept on its disk where volume and machine say so. Of another CSI driver, where that runs on the machine itself (AI nodes run no DaemonSet pods), with volumeMode Filesystem. Else the pod waits and says so.", "VolumeSource.PersistentVolumeClaim"),
	allowed("logs-exec", "kubectl logs, exec, attach, cp and port-forward work."),
	allowed("metrics-api", "kubectl top and the metrics API work."),
	allowed("init-containers", "Init containers and sidecars (restartPolicy: Always) work.", "PodSpec.InitContainers"),
	allowed("probes", "Liveness, readiness and startup probes work.",
		"Container.LivenessProbe", "Container.ReadinessProbe", "Container.StartupProbe",
		"EphemeralContainerCommon.LivenessProbe", "EphemeralContainerCommon.ReadinessProbe", "EphemeralContainerCommon.StartupProbe"),
}

func allowed(feature Feature, text string, claims ...string) Row {
	return Row{Feature: feature, Vendor: "supported", Default: Allow, Agent: Allow, Text: text, Claims: claims}
}

// Lookup finds the row of a feature.
func Lookup(feature Feature) (Row, bool) {
	for _, row := range Table {
		if row.Feature == feature {
			return row, true
		}
	}
	return Row{}, false
}
