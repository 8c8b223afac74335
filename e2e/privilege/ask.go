package privilege

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Object is one that somebody is asked about by name: his own, or a stranger's.
type Object struct {
	Resource        Resource
	Namespace, Name string
	// Field is asked for besides, by equality with Name: nodes list their own pods by
	// spec.nodeName. Name is then no object's.
	Field string
	// Of is what it is called in the list; empty where that is "its own".
	Of string
}

// Resource is one with its subresource, if any: pods/status.
type Resource struct{ Group, Name string }

// String is its name as kubectl has it, pods/status or leases.coordination.k8s.io.
func (r Resource) String() string {
	if r.Group == "" {
		return r.Name
	}
	resource, sub, has := strings.Cut(r.Name, "/")
	if has {
		sub = "/" + sub
	}
	return resource + "." + r.Group + sub
}

// Asked is what somebody is asked about.
type Asked struct {
	// Namespaces are tried one by one where a right is not had in all.
	Namespaces []string
	// Own are the objects that he has to do with, Strangers those that are none of his.
	Own, Strangers []Object
}

// Of what is allowed.
const (
	all       = "all"
	own       = "its own"
	strangers = "strangers'"
	// Invitation is the Secret that a join file's token is bound to.
	Invitation = "its invitation"
)

// question is one that the API server answers yes or no.
type question struct {
	resource   Resource
	verb       string
	of         string
	attributes authorizationv1.ResourceAttributes
}

// beyond are resources that no discovery names, and verbs that none has.
var beyond = map[Resource][]string{
	{"", "nodes/proxy"}: everyVerb, {"", "nodes/log"}: everyVerb, {"", "nodes/stats"}: everyVerb, {"", "nodes/metrics"}: everyVerb,
	{"", "nodes/spec"}: everyVerb, {"", "nodes/healthz"}: everyVerb, {"", "nodes/configz"}: everyVerb, {"", "nodes/pods"}: everyVerb,
	{"", "nodes/checkpoint"}: everyVerb,
	{"", "users"}:            {"impersonate"}, {"", "groups"}: {"impersonate"}, {"", "serviceaccounts"}: {"impersonate"},
	{"authentication.k8s.io", "uids"}: {"impersonate"}, {"authentication.k8s.io", "userextras/scopes"}: {"impersonate"},
	{"certificates.k8s.io", "signers"}:            {"approve", "sign", "attest"},
	{"rbac.authorization.k8s.io", "roles"}:        {"bind", "escalate"},
	{"rbac.authorization.k8s.io", "clusterroles"}: {"bind", "escalate"},
	{"*", "*"}: {"*"},
	{"", "*"}:  {"get", "list", "create"},
	{"resource.k8s.io", "resourceclaims/binding"}:     everyVerb,
	{"resource.k8s.io", "resourceclaims/driver"}:      everyVerb,
	{"policy", "podsecuritypolicies"}:                 {"use"},
	{"scheduling.k8s.io", "priorityclasses"}:          {"use"},
	{"admissionregistration.k8s.io", "paramresource"}: {"get"},
}

var everyVerb = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

// discovered are all resources of the cluster with the verbs that are asked for, and
// which of them are namespaced.
func discovered(client kubernetes.Interface) (verbs map[Resource][]string, namespaced map[Resource]bool, err error) {
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return nil, nil, fmt.Errorf("discover resources: %w", err)
	}
	verbs, namespaced = map[Resource][]string{}, map[Resource]bool{}
	for _, list := range lists {
		group, _, has := strings.Cut(list.GroupVersion, "/")
		if !has {
			group = ""
		}
		for _, r := range list.APIResources {
			key := Resource{group, r.Name}
			// Every verb of every resource: an authorizer goes by no discovery.
			verbs[key] = everyVerb
			namespaced[key] = r.Namespaced
		}
	}
	for r, more := range beyond {
		verbs[r] = slices.Concat(verbs[r], more)
	}
	return verbs, namespaced, nil
}

// Ask asks the API server, as the one that client is, about every verb on every
// resource that there is, and returns what is allowed, as Account.Rights has it. It asks about all of a resource
// first, then namespace by namespace and object by object.
func Ask(ctx context.Context, client kubernetes.Interface, a Asked) ([]string, error) {
	verbs, namespaced, err := discovered(client)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	allowed := map[Right]map[string]bool{}
	var work []func() error
	for resource, wanted := range verbs {
		for _, verb := range slices.Compact(slices.Sorted(slices.Values(wanted))) {
			work = append(work, func() error {
				for _, round := range rounds(resource, verb, namespaced[resource], a) {
					yes, err := anyOf(ctx, client, round)
					if err != nil {
						return err
					}
					mu.Lock()
					for _, of := range yes {
						key := Right{Resource: resource.String(), Of: of}
						if allowed[key] == nil {
							allowed[key] = map[string]bool{}
						}
						allowed[key][verb] = true
					}
					mu.Unlock()
					if len(yes) > 0 {
						return nil // what is allowed of all is allowed of each
					}
				}
				return nil
			})
		}
	}
	if err := together(work); err != nil {
		return nil, err
	}
	var rights []Right
	for right, verbs := range allowed {
		right.Verbs = strings.Join(slices.Sorted(maps.Keys(verbs)), " ")
		rights = append(rights, right)
	}
	paths, err := paths(ctx, client)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, right := range append(rights, paths...) {
		lines = append(lines, right.String())
	}
	slices.Sort(lines)
	return lines, nil
}

// rounds are the questions about a verb on a resource, the widest first; the next round
// is asked where no answer of one is yes.
func rounds(resource Resource, verb string, namespaced bool, a Asked) [][]question {
	name, sub, _ := strings.Cut(resource.Name, "/")
	about := func(of, namespace, object string) question {
		return question{resource, verb, of, authorizationv1.ResourceAttributes{
			Verb: verb, Group: resource.Group, Resource: name, Subresource: sub, Namespace: namespace, Name: object,
		}}
	}
	wide := []question{about(all, "", "")}
	var each, objects []question
	if namespaced {
		for _, ns := range a.Namespaces {
			each = append(each, about("all in "+ns, ns, ""))
		}
	}
	for of, list := range map[string][]Object{own: a.Own, strangers: a.Strangers} {
		for _, o := range list {
			if o.Resource != resource {
				continue
			}
			q := about(cmp.Or(o.Of, of), o.Namespace, o.Name)
			if o.Field != "" {
				q.attributes.Name = ""
				q.attributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{
					{Key: o.Field, Operator: metav1.FieldSelectorOpIn, Values: []string{o.Name}},
				}}
			}
			objects = append(objects, q)
		}
	}
	return [][]question{wide, each, objects}
}

// anyOf are those of the questions' subjects that are allowed.
func anyOf(ctx context.Context, client kubernetes.Interface, questions []question) ([]string, error) {
	var yes []string
	for _, q := range questions {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &q.attributes},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("ask about %s %s: %w", q.verb, q.resource, err)
		}
		if review.Status.Allowed && !slices.Contains(yes, q.of) {
			yes = append(yes, q.of)
		}
	}
	return yes, nil
}

// paths are the allowed ones that are no resource's, by their first part.
func paths(ctx context.Context, client kubernetes.Interface) ([]Right, error) {
	raw, err := client.Discovery().RESTClient().Get().AbsPath("/").DoRaw(ctx)
	var root metav1.RootPaths
	if err == nil {
		err = json.Unmarshal(raw, &root)
	}
	if err != nil { // who may not see the list is asked about a usual one
		root.Paths = []string{"/api", "/apis", "/healthz", "/livez", "/readyz", "/openapi/v3", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"}
	}
	// Some are served and not listed.
	root.Paths = append(root.Paths, "/", "/metrics", "/metrics/slis", "/logs", "/logs/kube-apiserver.log", "/debug/pprof", "/debug/flags/v", "/configz", "/statusz", "/flagz")
	first := map[string]bool{}
	for _, path := range root.Paths {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: "get"}},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("ask about %s: %w", path, err)
		}
		if review.Status.Allowed {
			part, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
			first["/"+part] = true
		}
	}
	var rights []Right
	for part := range first {
		rights = append(rights, Right{Verbs: "get", Resource: part, Of: all})
	}
	return rights, nil
}

// together does all of it, some at a time.
func together(work []func() error) error {
	errs := make([]error, len(work))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, do := range work {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = do()
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
