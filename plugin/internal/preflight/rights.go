// Package preflight asks a cluster, before anything is changed, whether the person
// may do all that a command is about to do, and lists what is missing all at once.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Role is what the chart has for people: a ClusterRole, and Roles of the same name
// in some namespaces.
type Role struct {
	Name       string
	namespaces []string
	// otherwise tells that a command which was refused has left everything as it was.
	otherwise string
}

var (
	// Binder grants what the commands that change something need.
	Binder = Role{"ainode-binder", []string{contract.SystemNamespace, corev1.NamespaceNodeLease, metav1.NamespaceSystem}, "; nothing was changed"}
	// Viewer grants what the commands that only show something need.
	Viewer = Role{"ainode-viewer", []string{contract.SystemNamespace}, ""}
	// Top grants what top needs; the chart makes it for the nodes that roles.topNodes
	// names.
	Top = Role{"ainode-top", nil, ""}
)

// Right is one thing that somebody may do.
type Right struct {
	Verb, Group, Resource, Subresource string
	// Namespace and Name narrow it down; empty is all.
	Namespace, Name string
}

// String is the right as kubectl auth can-i is asked for it:
// create serviceaccounts/token "x" -n ainode-system.
func (r Right) String() string {
	text := r.Verb + " " + r.Resource
	if r.Group != "" {
		text += "." + r.Group
	}
	if r.Subresource != "" {
		text += "/" + r.Subresource
	}
	if r.Name != "" {
		text += fmt.Sprintf(" %q", r.Name)
	}
	if r.Namespace != "" {
		text += " -n " + r.Namespace
	}
	return text
}

// Needs are the rights that one cluster is asked about.
type Needs struct {
	Cluster *kube.Cluster
	Rights  []Right
}

// Explain makes an API server's refusal speak of all that is missing, rather than of
// what was asked first. Other errors are left as they are.
func (r Role) Explain(ctx context.Context, err error, doing string, needs ...Needs) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	var lacking *remedy.Error
	if all := r.Check(ctx, doing, needs...); errors.As(all, &lacking) {
		return lacking
	}
	return err
}

// Check asks the clusters, all rights at once, and fails with the missing ones in
// the order of needs. doing says what they are for: "bind AI nodes".
func (r Role) Check(ctx context.Context, doing string, needs ...Needs) error {
	type answer struct {
		missing bool
		err     error
	}
	answers := make([][]answer, len(needs))
	var wg sync.WaitGroup
	for i, n := range needs {
		answers[i] = make([]answer, len(n.Rights))
		for j, right := range n.Rights {
			wg.Go(func() {
				ok, err := may(ctx, n.Cluster.Core, right)
				answers[i][j] = answer{missing: !ok, err: err}
			})
		}
	}
	wg.Wait()

	var missing []string
	for i, n := range needs {
		told := map[string]bool{}
		for j, right := range n.Rights {
			if err := answers[i][j].err; err != nil {
				return fmt.Errorf("ask the %s cluster what you may do: %w", n.Cluster.Name, err)
			}
			line := fmt.Sprintf("  on the %-6s  %s", n.Cluster.Name, right)
			if answers[i][j].missing && !told[line] {
				told[line] = true
				missing = append(missing, line)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	user := "USER"
	if len(needs) > 0 {
		user = whoAmI(ctx, needs[0].Cluster.Core)
	}
	return r.lacking(doing, user, missing)
}

// lacking is the error that lists missing rights.
func (r Role) lacking(doing, user string, missing []string) error {
	count := fmt.Sprintf("%d rights are", len(missing))
	if len(missing) == 1 {
		count = "one right is"
	}
	command := fmt.Sprintf("kubectl create clusterrolebinding %[1]s-%[2]s --clusterrole %[1]s --user %[3]s", r.Name, short(user), quoted(user))
	roles, grant := "ClusterRole", "grants"
	if len(r.namespaces) > 0 {
		roles, grant = "ClusterRole and Roles", "grant"
		command += fmt.Sprintf("; for ns in %[4]s; do kubectl create rolebinding %[1]s-%[2]s -n $ns --role %[1]s --user %[3]s; done",
			r.Name, short(user), quoted(user), strings.Join(r.namespaces, " "))
	}
	return &remedy.Error{
		Err:     fmt.Errorf("you (%s) may not %s: %s missing%s\n%s", user, doing, count, r.otherwise, strings.Join(missing, "\n")),
		Say:     fmt.Sprintf("The chart's %s %q %s them; an administrator types", roles, r.Name, grant),
		Command: command,
	}
}

// quoted is text as a shell takes it: who may log in chooses the name, and an
// administrator types the command.
func quoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func may(ctx context.Context, core kubernetes.Interface, r Right) (bool, error) {
	review, err := core.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource,
			Namespace: r.Namespace, Name: r.Name,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// whoAmI is for a message only: where the cluster does not say, USER does.
func whoAmI(ctx context.Context, core kubernetes.Interface) string {
	review, err := core.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || review.Status.UserInfo.Username == "" {
		return "USER"
	}
	return review.Status.UserInfo.Username
}

// short makes a user's name fit into an object's.
func short(user string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(user)), "-")
}
