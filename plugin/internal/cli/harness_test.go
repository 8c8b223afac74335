package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
)

// Scripts run command lines against API servers that are client-go's and
// controller-runtime's fakes; what only a real one does is the story's matter.
//
//	ainode ARGS…            runs the command; stdout and stderr can be compared
//	found ARGS…             the same, where it ends with findings (exit code 2)
//	exec kubectl-ainode …   the plugin as people have it, in the script's folder, without any cluster
//	agent NODE              an agent that does what one does with its record
//	silent TEXT             what agents from here on say of the target that does not answer their pods
//	lease NODE AGE          when the agent was seen last ("never" has no Lease)
//	older NODE              an agent of before there were renewals has the node's Lease
//	ends NODE TIME          waits until the node's machine goes by this end of its binding ("never" is none)
//	chart AGE               the hub's records are of an "older" chart, or a "new" one
//	deny WORD…              rights that the person lacks (any that holds all words)
//	interrupt TEXT ARGS…    runs the command, and Ctrl-C as soon as stderr has the text
//	unreachable             from here on the target does not answer
//	unheld THING            what the target wrongly allows an identity (secrets, pods, labels)
//	skew DURATION           how far the machines' clocks are ahead of the hub's
//	version TEXT            what both API servers call their version
//	webhook STATE           how the target's webhook does: "fits" pods, is "silent" or "down"
//	dark NODE               through the API server this node does not answer
//	rival NODE              is bound with the same range in the moment before the next record with a range is written
//	records                 prints each record's name, spec and status in short
//	target                  prints what is on the target, in short
//
// NODE.metrics is what a node's agent measures.
// hub.yaml and target.yaml are what is there at the beginning.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, "no-kubeconfig"))
			w, err := newWorld(env.WorkDir)
			if err != nil {
				return err
			}
			env.Values[worldKey{}] = w
			env.Defer(w.stop)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ainode": func(ts *testscript.TestScript, neg bool, args []string) {
				runs(ts, map[bool]int{false: 0, true: 1}[neg], args)
			},
			"found": func(ts *testscript.TestScript, _ bool, args []string) { runs(ts, findingsExitCode, args) },
			"agent": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(world(ts).agent(args[0])) },
			"lease": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(world(ts).lease(args[0], args[1])) },
			"older": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(world(ts).older(args[0])) },
			"ends": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(world(ts).machineEnds(args[0], args[1]))
			},
			"chart": func(ts *testscript.TestScript, _ bool, args []string) { world(ts).chart = args[0] },
			"deny": func(ts *testscript.TestScript, _ bool, args []string) {
				world(ts).denied = append(world(ts).denied, args)
			},
			"interrupt":   func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(interrupt(ts, args[0], args[1:])) },
			"unreachable": func(ts *testscript.TestScript, _ bool, _ []string) { world(ts).unreachable.Store(true) },
			"silent":      func(ts *testscript.TestScript, _ bool, args []string) { world(ts).silent = args[0] },
			"skew": func(ts *testscript.TestScript, _ bool, args []string) {
				d, err := time.ParseDuration(args[0])
				ts.Check(err)
				world(ts).skew = d
			},
			"version": func(ts *testscript.TestScript, _ bool, args []string) { world(ts).setVersion(args[0]) },
			"webhook": func(ts *testscript.TestScript, _ bool, args []string) { world(ts).webhook = args[0] },
			"dark":    func(ts *testscript.TestScript, _ bool, args []string) { world(ts).dark = args[0] },
			"rival":   func(ts *testscript.TestScript, _ bool, args []string) { world(ts).rival = args[0] },
			"unheld":  func(ts *testscript.TestScript, _ bool, args []string) { world(ts).unheld = args[0] },
			"records": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(world(ts).printRecords(ts.Stdout())) },
			"target":  func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(world(ts).printTarget(ts.Stdout())) },
		},
	})
}

func runs(ts *testscript.TestScript, want int, args []string) {
	for i, a := range args {
		if strings.HasPrefix(a, "@/") { // a file of the script
			args[i] = ts.MkAbs(a[2:])
		}
	}
	if code := world(ts).run(world(ts).ctx, ts.Stdout(), ts.Stderr(), args); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func interrupt(ts *testscript.TestScript, text string, args []string) error {
	ctx, cancel := context.WithCancel(world(ts).ctx)
	defer cancel()
	if code := world(ts).run(ctx, ts.Stdout(), &tripwire{Writer: ts.Stderr(), text: text, trip: cancel}, args); code != 1 {
		return fmt.Errorf("exit code %d, want 1", code)
	}
	if ctx.Err() == nil {
		return fmt.Errorf("%q was not seen", text)
	}
	return nil
}

// tripwire calls trip once text was written.
type tripwire struct {
	io.Writer
	text, seen string
	trip       func()
}

func (t *tripwire) Write(b []byte) (int, error) {
	if t.seen += string(b); strings.Contains(t.seen, t.text) {
		t.trip()
	}
	return t.Writer.Write(b)
}

// TestMain makes this test's binary the plugin where a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubectl-ainode": func() {
		os.Exit(Main(context.Background(), os.Args[1:], genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
	}})
}

type worldKey struct{}

func world(ts *testscript.TestScript) *fakeWorld { return ts.Value(worldKey{}).(*fakeWorld) }

// today is when every script takes place.
var today = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// standing is a clock that shows today and whose timers run.
type standing struct{ clock.RealClock }

func (standing) Now() time.Time                  { return today }
func (standing) Since(t time.Time) time.Duration { return today.Sub(t) }

// fakeWorld is a hub and a target.
type fakeWorld struct {
	records client.WithWatch
	hub     *fake.Clientset
	target  *fake.Clientset
	denied  [][]string
	unheld  string
	silent  string
	// webhook is how the target's does, dark the node that does not answer.
	webhook, dark string
	// rival is a node that somebody else binds meanwhile.
	rival string
	// chart is how old the hub's is.
	chart string
	// skew is how far the machines' clocks are ahead of the hub's.
	skew time.Duration
	// unreachable: the target answers nothing.
	unreachable atomic.Bool
	getter      genericclioptions.RESTClientGetter
	// dir has a file NODE.metrics for each node whose agent answers.
	dir string

	ctx  context.Context
	end  context.CancelFunc
	busy sync.WaitGroup
}

func (w *fakeWorld) stop() {
	w.end()
	w.busy.Wait()
}

func newWorld(dir string) (*fakeWorld, error) {
	w := &fakeWorld{webhook: "fits", dir: dir}
	w.ctx, w.end = context.WithCancel(context.Background())
	all := kube.Scheme()
	if err := scheme.AddToScheme(all); err != nil {
		return nil, err
	}
	hub, err := readObjects(all, filepath.Join(dir, "hub.yaml"))
	if err != nil {
		return nil, err
	}
	target, err := readObjects(all, filepath.Join(dir, "target.yaml"))
	if err != nil {
		return nil, err
	}
	var records []client.Object
	var core []runtime.Object
	for _, o := range hub {
		switch o := o.(type) {
		case *v1alpha1.AINode:
			records = append(records, o)
		case *v1alpha1.ClusterConfig:
			records = append(records, o)
		default:
			core = append(core, o)
		}
	}
	w.records = crfake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(records...).
		WithStatusSubresource(&v1alpha1.AINode{}, &v1alpha1.ClusterConfig{}).
		WithIndex(&v1alpha1.AINode{}, metav1.ObjectNameField, func(o client.Object) []string { return []string{o.GetName()} }).
		WithInterceptorFuncs(w.guard()).Build()
	w.hub, w.target = w.cluster(core), w.cluster(target)
	w.setVersion("v1.37.2")
	w.hub.PrependReactor("list", "leases", w.leases)
	w.target.PrependReactor("*", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
		return w.unreachable.Load(), nil, &url.Error{Op: "Get", URL: "https://target:6443/api", Err: syscall.ECONNREFUSED}
	})
	w.getter, err = w.serve(dir)
	return w, err
}

// cluster is a fake that answers what an API server computes.
func (w *fakeWorld) cluster(objects []runtime.Object) *fake.Clientset {
	c := fake.NewClientset(objects...)
	c.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "pods/eviction", Kind: "Eviction", Group: "policy", Version: "v1"},
	}}}
	c.PrependReactor("create", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		create, ok := a.(k8stesting.CreateActionImpl)
		return ok && len(create.CreateOptions.DryRun) > 0, a.(k8stesting.CreateAction).GetObject(), nil // the fake would keep it
	})
	c.PrependReactor("list", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		r := a.GetResource()
		if w.allowed(&authorizationv1.ResourceAttributes{Verb: "list", Group: r.Group, Resource: r.Resource, Namespace: a.GetNamespace()}) {
			return false, nil, nil
		}
		return true, nil, apierrors.NewForbidden(r.GroupResource(), "", fmt.Errorf("User %q cannot list resource %q in API group %q", "kim", r.Resource, r.Group))
	})
	c.PrependReactor("get", "configmaps", func(a k8stesting.Action) (bool, runtime.Object, error) {
		name := a.(k8stesting.GetAction).GetName()
		if w.allowed(&authorizationv1.ResourceAttributes{Verb: "get", Resource: "configmaps", Namespace: a.GetNamespace(), Name: name}) {
			return false, nil, nil
		}
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("no"))
	})
	c.PrependReactor("create", "selfsubjectaccessreviews", func(a k8stesting.Action) (bool, runtime.Object, error) {
		review := a.(k8stesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		review.Status.Allowed = w.allowed(review.Spec.ResourceAttributes)
		return true, review, nil
	})
	c.PrependReactor("list", "nodes", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if w.allowed(&authorizationv1.ResourceAttributes{Verb: "list", Resource: "nodes"}) {
			return false, nil, nil
		}
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", errors.New("no"))
	})
	c.PrependReactor("create", "selfsubjectreviews", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{
			UserInfo: authenticationv1.UserInfo{Username: "kim"},
		}}, nil
	})
	c.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		request := a.(k8stesting.CreateAction).GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		request.Status = authenticationv1.TokenRequestStatus{
			Token:               "token-of-" + a.(k8stesting.CreateActionImpl).Name,
			ExpirationTimestamp: metav1.NewTime(today.Add(time.Duration(*request.Spec.ExpirationSeconds) * time.Second)),
		}
		return true, request, nil
	})
	c.PrependReactor("create", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "eviction" {
			return w.admit(a.(k8stesting.CreateActionImpl))
		}
		pod := a.(k8stesting.CreateAction).GetObject().(*policyv1.Eviction)
		if strings.HasPrefix(pod.Name, "guarded") {
			refused := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
			refused.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: "The disruption budget guard needs 1 healthy pods and has 1 currently"}}
			return true, nil, refused
		}
		if pod.DeleteOptions != nil && len(pod.DeleteOptions.DryRun) > 0 {
			return true, nil, nil
		}
		return true, nil, c.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), pod.Namespace, pod.Name)
	})
	return c
}

func (w *fakeWorld) allowed(r *authorizationv1.ResourceAttributes) bool {
	all := strings.Join([]string{r.Verb, r.Resource, r.Subresource, r.Name, r.Namespace}, " ")
	for _, words := range w.denied {
		holds := true
		for _, word := range words {
			holds = holds && strings.Contains(all, word)
		}
		if holds {
			return false
		}
	}
	return true
}

// as is the target as a new identity meets it.
func (w *fakeWorld) as(token, _, _ string) (kubernetes.Interface, error) {
	if !strings.HasPrefix(token, "token-of-ainode-") {
		return nil, errors.New("not the identity's token")
	}
	c := fake.NewClientset()
	forbid := func(resource string) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
	}
	c.PrependReactor("create", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		create, ok := a.(k8stesting.CreateActionImpl)
		return ok && len(create.CreateOptions.DryRun) > 0, a.(k8stesting.CreateAction).GetObject(), nil // the fake would keep it
	})
	c.PrependReactor("list", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if a.GetResource().Resource == w.unheld {
			return false, nil, nil
		}
		return forbid(a.GetResource().Resource)
	})
	c.PrependReactor("create", "nodes", func(a k8stesting.Action) (bool, runtime.Object, error) {
		node := a.(k8stesting.CreateAction).GetObject().(*corev1.Node)
		_, restricted := node.Labels["node-restriction.kubernetes.io/ainode-proof"]
		if strings.HasSuffix(node.Name, "-stranger") || restricted && w.unheld != "labels" {
			return forbid("nodes")
		}
		return true, node, nil
	})
	return c, nil
}

func (w *fakeWorld) Hub() (*kube.Cluster, error) {
	return &kube.Cluster{Name: "hub", Config: &rest.Config{Host: "https://hub:6443", TLSClientConfig: rest.TLSClientConfig{CAData: []byte("pem")}},
		Core: w.hub, Records: w.records, ContextName: "hub", Greet: greet}, nil
}

func (w *fakeWorld) Target() (*kube.Cluster, error) {
	return &kube.Cluster{Name: "target", Config: &rest.Config{Host: "https://target:6443", TLSClientConfig: rest.TLSClientConfig{CAData: []byte("pem")}},
		Core: w.target, Records: w.records, As: w.as, ContextName: "Prod_Cluster",
		Date:  func(context.Context) (time.Time, error) { return today.Add(-w.skew), nil },
		Probe: w.probe, Scrape: w.scrape, Greet: greet}, nil
}

// greet is what machines would meet at an address.
func greet(_ context.Context, a kube.Address) error {
	switch {
	case strings.Contains(a.Server, "silent"):
		return syscall.ECONNREFUSED
	case strings.Contains(a.Server, "stranger"):
		return &kube.UntrustedError{Server: a.Server, Err: errors.New("x509: certificate signed by unknown authority")}
	}
	return nil
}

// scrape is what a node's agent tells through the API server.
func (w *fakeWorld) scrape(_ context.Context, node string) ([]byte, error) {
	if !w.allowed(&authorizationv1.ResourceAttributes{Verb: "get", Resource: "nodes", Subresource: "proxy", Name: node}) {
		return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, node, errors.New("no"))
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, node+".metrics"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, apierrors.NewServiceUnavailable("error trying to reach service: dial tcp 10.0.0.9:10250: connect: no route to host")
	}
	return raw, err
}

func (w *fakeWorld) Getter() genericclioptions.RESTClientGetter { return w.getter }

func (w *fakeWorld) run(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	return Run(ctx, args, &Env{
		IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: stdout, ErrOut: stderr},
		Clock:     standing{}, Clusters: w, Version: "v0.1.0",
	})
}

func readObjects(s *runtime.Scheme, path string) ([]runtime.Object, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var objects []runtime.Object
	documents := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		var u runtime.RawExtension
		if err := documents.Decode(&u); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		gvk, err := gvkOf(u.Raw)
		if err != nil {
			return nil, err
		}
		o, err := s.New(gvk)
		if err != nil {
			return nil, err
		}
		if err := utilyaml.UnmarshalStrict(u.Raw, o); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
}

func gvkOf(raw []byte) (schema.GroupVersionKind, error) {
	var t metav1.TypeMeta
	err := utilyaml.Unmarshal(raw, &t)
	return t.GroupVersionKind(), err
}
