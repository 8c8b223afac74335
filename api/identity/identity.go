// Package identity names the accounts and objects that stand for an AI node on
// the hub and on the target, so that the plugin that makes them, the agent that
// uses them and the webhook program that cleans up agree without a look-up.
package identity

import (
	"strconv"
	"time"
)

// ServingCertificateLife is how long a serving certificate is asked for, and the most
// that is approved. It does not end with the binding, and an address goes to another
// machine some day; a signer left to itself gives a year.
const ServingCertificateLife = 30 * 24 * time.Hour

// HubAccount is the name of the node's ServiceAccount on the hub, in the system
// namespace. It may read its own AINode and handover Secret and write its own
// status and Lease, nothing else.
func HubAccount(node string) string { return node }

// HubRole is the name of the Role, ClusterRole and their bindings of HubAccount.
func HubRole(node string) string { return "ainode-agent-" + node }

// HubLease is the name of the Lease, in the system namespace of the hub, that
// only one machine holds: its holderIdentity is the machine.
func HubLease(node string) string { return "ainode-" + node }

// HandoverSecret is the name of the Secret, in the system namespace of the hub,
// through which bind hands a sealed target credential to the agent.
func HandoverSecret(node string) string { return "ainode-handover-" + node }

// Joiner is the name of the ServiceAccount whose only right is one token for
// HubAccount, and of the Secret that the token is bound to.
func Joiner(node string) string { return "ainode-join-" + node }

// Target is the name, on the target, of everything of one bind epoch: the
// ServiceAccount and Role in the system namespace, the ClusterRole that owns them
// and the bindings of both.
func Target(node string, epoch int64) string {
	return "ainode-" + node + "-" + strconv.FormatInt(epoch, 10)
}

// NodeUser is the user that the node's target account impersonates.
func NodeUser(node string) string { return "system:node:" + node }

// NodesGroup is the group it impersonates along with NodeUser.
const NodesGroup = "system:nodes"
