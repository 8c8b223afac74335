// Package remains judges what is left on a target of an AI node's bindings that are
// over, and in which order it goes. The plugin removes it at the end of an unbinding,
// the webhook program where a plugin did not get that far.
package remains

import (
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// Seen is what a target shows of an AI node. Identities are to be read last: a newer
// binding makes its identity before anything else, so that nothing of one is among
// the rest unless it is among them.
type Seen struct {
	// Node is nil if there is none.
	Node *corev1.Node
	// Pods are those bound to the Node.
	Pods []corev1.Pod
	// Requests are certificate requests, anybody's.
	Requests []certificatesv1.CertificateSigningRequest
	// Identities are the ClusterRoles with the node's label.
	Identities []rbacv1.ClusterRole
}

// Object is what both an API client deletes and a reader names.
type Object interface {
	metav1.Object
	runtime.Object
}

// Thing is one object to be deleted.
type Thing struct {
	// Kind for people; Object has the name and the namespace.
	Kind string
	Object
	// Options keep the deletion to the very object that was seen.
	Options metav1.DeleteOptions
}

// Remains are what may go.
type Remains struct {
	// Identities go first: whatever held their tokens is out from there on.
	Identities []Thing
	// Requests are the node's certificate requests.
	Requests []Thing
	// Node is the Node and its Lease. A Node goes after what nobody else clears; what
	// comes after it, Kubernetes clears without us too: the Lease is owned by the Node,
	// and pods without a node are collected.
	Node []Thing
	// Pods are records of pods whose processes are gone with the machine's release:
	// DaemonSet pods, which never ran, and what came after the drain. They go after the
	// Node, or a DaemonSet's controller makes them again.
	Pods []Thing

	// Newer is an epoch later than the one that is over, if the target has one: Node,
	// pods and requests are that one's, and are not among the remains.
	Newer int64
	// Foreign says that there is a Node of that name that no binding made. It and its
	// pods are not among the remains.
	Foreign bool
}

// Of judges what may go once node has given back every epoch up to newest.
func Of(node string, newest int64, seen Seen) Remains {
	r := Remains{Identities: Identities(node, newest, seen.Identities)}
	for i := range seen.Identities {
		if epoch, ok := identity.TargetEpoch(&seen.Identities[i], node); ok && epoch > newest {
			r.Newer = max(r.Newer, epoch)
		}
	}
	if seen.Node != nil {
		switch epoch, ours := identity.Epoch(seen.Node); {
		case !ours:
			r.Foreign = true
		case epoch > newest:
			r.Newer = max(r.Newer, epoch)
		}
	}
	if r.Newer > 0 {
		return r
	}
	for i := range seen.Requests {
		if request := &seen.Requests[i]; request.Spec.Username == identity.NodeUser(node) && request.Spec.SignerName == certificatesv1.KubeletServingSignerName {
			r.Requests = append(r.Requests, thing("CertificateSigningRequest", request))
		}
	}
	if r.Foreign {
		return r
	}
	if seen.Node != nil {
		r.Node = append(r.Node, thing("Node", seen.Node))
	}
	r.Node = append(r.Node, thing("Lease", &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node}}))
	for i := range seen.Pods {
		pod := thing("Pod", &seen.Pods[i])
		pod.Options.GracePeriodSeconds = ptr.To(int64(0))
		r.Pods = append(r.Pods, pod)
	}
	return r
}

// InOrder are all of them, in the order in which they are to go.
func (r Remains) InOrder() []Thing {
	return slices.Concat(r.Identities, r.Requests, r.Node, r.Pods)
}

// Identities are the identities of every epoch of node up to newest among roles; an
// earlier one may be left of a walk that broke off. Garbage collection would take
// what a ClusterRole owns; by name it is done at once, and the account's death comes
// first. The ClusterRole goes last: it is how the rest is found again.
func Identities(node string, newest int64, roles []rbacv1.ClusterRole) []Thing {
	var things []Thing
	for i := range roles {
		role := &roles[i]
		if epoch, ok := identity.TargetEpoch(role, node); !ok || epoch > newest {
			continue
		}
		meta := metav1.ObjectMeta{Name: role.Name}
		inside := metav1.ObjectMeta{Name: role.Name, Namespace: contract.SystemNamespace}
		things = append(things,
			thing("ServiceAccount", &corev1.ServiceAccount{ObjectMeta: inside}),
			thing("ClusterRoleBinding", &rbacv1.ClusterRoleBinding{ObjectMeta: meta}),
			thing("RoleBinding", &rbacv1.RoleBinding{ObjectMeta: inside}),
			thing("Role", &rbacv1.Role{ObjectMeta: inside}),
			thing("ClusterRole", role),
		)
	}
	return things
}

// thing is an object with the precondition that it is still the one that was seen.
// What is known by its name alone has none.
func thing(kind string, o Object) Thing {
	t := Thing{Kind: kind, Object: o}
	if uid := o.GetUID(); uid != "" {
		t.Options.Preconditions = &metav1.Preconditions{UID: ptr.To(uid)}
	}
	return t
}
