package privilege

// Accounts are those that act for an AI node, each with all that it may do.
func Accounts() []Account { return []Account{Target(), Node(), Hub(), Joiner()} }

// everybody is what an API server lets each account do that it knows.
var everybody = []Grant{
	{Right{"create", "selfsubjectaccessreviews.authorization.k8s.io", all}, "ask what one may do"},
	{Right{"create", "selfsubjectrulesreviews.authorization.k8s.io", all}, "the same"},
	{Right{"create", "selfsubjectreviews.authentication.k8s.io", all}, "ask who one is"},
	{Right{"get", "/api", all}, "discovery"},
	{Right{"get", "/apis", all}, "discovery"},
	{Right{"get", "/healthz", all}, "whether the API server is well"},
	{Right{"get", "/livez", all}, "the same"},
	{Right{"get", "/openapi", all}, "discovery"},
	{Right{"get", "/readyz", all}, "as /healthz"},
	{Right{"get", "/version", all}, "the API server's version"},
}

// serviceAccounts is what it lets each service account do besides.
var serviceAccounts = []Grant{
	{Right{"get", "/.well-known", all}, "who issues tokens: public keys"},
	{Right{"get", "/openid", all}, "the same"},
	{Right{"get list watch", "clustertrustbundles.certificates.k8s.io", all}, "public certificates"},
}

// Target is the account that bind makes on the target for one epoch of one node.
func Target() Account {
	return Account{
		Title: "On the target: the account of one epoch",
		Text: "`ainode-NODE-EPOCH` in `ainode-system`, made by `bind` and `renew` and gone with the unbinding. Its token lies on the machine alone; " +
			"it lives 24 hours at most (policy `ainode-token-life`), and the agent renews it.",
		Grants: []Grant{
			{Right{"create", "serviceaccounts/token", own}, "to renew its own token"},
			{Right{"impersonate", "groups", own}, "to be in `system:nodes` with that, where the Node authorizer judges it"},
			{Right{"impersonate", "users", own}, "to act as `system:node:NODE`, and as nobody else"},
		},
		ServiceAccount: true,
	}
}

// Node is what that account may do as the node.
func Node() Account {
	const unneeded = "not needed; "
	return Account{
		Title: "On the target: as the node",
		Text: "What the account above comes to by acting as `system:node:NODE`. The Node authorizer gives it what it gives every kubelet; where that says yes to all, " +
			"admission still refuses what is another's (NodeRestriction) or what no agent of ours does (*refused*: policy `ainode-node-identity`).",
		Grants: []Grant{
			{Right{"create get list watch", "certificatesigningrequests.certificates.k8s.io", all}, "its serving certificate; for any other signer *refused*. What is in others' requests is public"},
			{Right{"get list watch", "clustertrustbundles.certificates.k8s.io", all}, unneeded + "public certificates"},
			{Right{"get list watch", "configmaps", own}, "volumes and environments of its pods"},
			{Right{"get list watch", "csidrivers.storage.k8s.io", all}, "get: how a driver on the machine wants to be asked"},
			{Right{"create", "csinodes.storage.k8s.io", all}, "to tell which CSI drivers its machine has; of another name NodeRestriction refuses it"},
			{Right{"delete get patch update", "csinodes.storage.k8s.io", own}, "the same; delete: what is left of an earlier Node of its name"},
			{Right{"get", "endpoints", all}, unneeded + "addresses of Services"},
			{Right{"create patch update", "events", all}, "to tell what befalls its pods. Who reads events should know that any node can write any"},
			{Right{"create patch update", "events.events.k8s.io", all}, "the same"},
			{Right{"create", "leases.coordination.k8s.io", "all in kube-node-lease"}, "its heartbeat; of another name NodeRestriction refuses it"},
			{Right{"delete get patch update", "leases.coordination.k8s.io", own}, "its heartbeat"},
			{Right{"create", "localsubjectaccessreviews.authorization.k8s.io", all}, unneeded + "ask what somebody may do"},
			{Right{"create patch update", "nodes", all}, "to register, and to label itself; NodeRestriction holds it to its own Node and refuses taints, and the labels that say what it is, and the cordon, are *refused*"},
			{Right{"get list watch", "nodes", own}, "to see what people change of it"},
			{Right{"patch update", "nodes/status", all}, "to report; NodeRestriction holds it to its own"},
			{Right{"get", "persistentvolumeclaims", own}, "volumes of its pods"},
			{Right{"patch update", "persistentvolumeclaims/status", own}, unneeded + "the size of a volume of its pods"},
			{Right{"get", "persistentvolumes", own}, "volumes of its pods"},
			{Right{"create", "podcertificaterequests.certificates.k8s.io", all}, unneeded + "*refused*: as good as a token of its pods' accounts"},
			{Right{"create delete", "pods", all}, "delete: pods that have ended; NodeRestriction holds it to its own. create: *refused*"},
			{Right{"get list watch", "pods", own}, "to run them"},
			{Right{"create", "pods/eviction", all}, "to send its pods away before the end of a binding that has one (`bind --until`); NodeRestriction holds it to its own"},
			{Right{"patch update", "pods/status", all}, "to tell how they do; NodeRestriction holds it to its own"},
			{Right{"create", "resourceslices.resource.k8s.io", all}, unneeded + "*refused*"},
			{Right{"get list watch", "runtimeclasses.node.k8s.io", all}, unneeded + "names of runtimes"},
			{Right{"get list watch", "secrets", own}, "volumes, environments and pull secrets of its pods"},
			{Right{"get", "serviceaccounts", own}, unneeded + "accounts of its pods, not their tokens"},
			{Right{"create", "serviceaccounts/token", own}, "tokens of its pods' accounts, in namespaces that the chart names (`admission.tokenNamespaces`); elsewhere *refused*"},
			{Right{"get list watch", "services", all}, "variables of the Services of its pods' namespaces (`enableServiceLinks`)"},
			{Right{"create", "subjectaccessreviews.authorization.k8s.io", all}, "to ask whether who calls its API may"},
			{Right{"create", "tokenreviews.authentication.k8s.io", all}, "to ask who calls its API"},
		},
	}
}

// Hub is the account of the agent on the hub.
func Hub() Account {
	return Account{
		Title: "On the hub: the agent's account",
		Text:  "`NODE` in `ainode-system`, made by `add`. It has nothing to say on any target.",
		Grants: []Grant{
			{Right{"get list patch watch", "ainodes.ainode.dev", own}, "to learn what is wanted of its machine; patch: to let go at the end of a binding that has one (`bind --until`), all else is *refused* (policy `ainode-agent-record`)"},
			{Right{"patch", "ainodes.ainode.dev/status", own}, "to report"},
			{Right{"get update", "leases.coordination.k8s.io", own}, "to be the one machine of its name"},
			{Right{"get list patch watch", "secrets", own}, "to take the credential that is sealed to it, and to blank it"},
			{Right{"delete", "secrets", Invitation}, "to spend it"},
			{Right{"create", "serviceaccounts/token", own}, "to renew its own token"},
		},
		ServiceAccount: true,
	}
}

// Joiner is the account of an invitation.
func Joiner() Account {
	return Account{
		Title: "On the hub: an invitation",
		Text: "`ainode-join-NODE` in `ainode-system`: what a join file holds a token of, for an hour. The token is bound to a Secret that joining deletes, " +
			"so that a copy of the file is worth nothing afterwards.",
		Grants: []Grant{
			{Right{"create", "serviceaccounts/token", own}, "one token of the agent's account on the hub"},
		},
		ServiceAccount: true,
	}
}
