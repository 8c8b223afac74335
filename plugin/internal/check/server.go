package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/ainode/ainode/api/contract"
)

// byServer is the feature of what a server says that is of no row of the table.
const byServer contract.Feature = "server"

// Server asks a cluster's own webhook, by creating objects in a dry run.
type Server struct {
	client    dynamic.Interface
	said      *collector
	namespace string
}

// NewServer makes a Server; objects that name no namespace go into the given one.
func NewServer(cfg *rest.Config, namespace string) (*Server, error) {
	said := &collector{}
	own := rest.CopyConfig(cfg)
	own.WarningHandler, own.WarningHandlerWithContext = said, nil
	client, err := dynamic.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("make a client for the dry run: %w", err)
	}
	return &Server{client: client, said: said, namespace: namespace}, nil
}

// collector keeps the warnings of one answer.
type collector struct {
	mu  sync.Mutex
	all []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (c *collector) HandleWarningHeader(code int, _, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if code == 299 && text != "" && !slices.Contains(c.all, text) {
		c.all = append(c.all, text)
	}
}

func (c *collector) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// ofServer are the fields that only an API server sets.
var ofServer = []string{"resourceVersion", "uid", "creationTimestamp", "managedFields", "generation", "selfLink"}

// Ask creates o in a dry run. What is told and refused are findings; an error is
// that the server could not be asked.
func (s *Server) Ask(ctx context.Context, o Object) (Result, error) {
	result := Result{Object: o}
	if !o.Live() {
		if result.Findings = o.amounts(); len(result.Findings) > 0 {
			return result, nil // the server would not answer
		}
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(o.JSON); err != nil {
		return result, o.wrong("", fmt.Errorf("decode %s: %w", o.Ref, err))
	}
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "spec", "ephemeralContainers") // nothing is created with them
	for _, field := range ofServer {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	if o.Live() && o.is("batch", "Job") {
		forgetJob(u.Object)
	}
	gv, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return result, o.wrong("apiVersion", err)
	}
	s.said.take()
	made, err := s.client.Resource(gv.WithResource(kinds[o.groupKind()].resource)).
		Namespace(cmp.Or(o.Namespace, s.namespace)).
		Create(ctx, &u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: "kubectl-ainode"})
	for _, text := range s.said.take() {
		result.Findings = append(result.Findings, o.toldBy(text))
	}
	switch {
	case err == nil:
		if result.Patched, err = made.MarshalJSON(); err != nil {
			return result, fmt.Errorf("encode %s: %w", o.Ref, err)
		}
	case apierrors.IsAlreadyExists(err): // it was admitted: storing comes after that
	case refused(err):
		result.Findings = append(result.Findings, o.refusedBy(err)...)
	default:
		return result, o.wrong("", fmt.Errorf("ask the server about %s: %w", o.Ref, err))
	}
	result.Findings = inOrder(result.Findings)
	return result, nil
}

// forgetJob takes out what the API server generates of a Job and accepts from nobody.
func forgetJob(job map[string]any) {
	if manual, _, _ := unstructured.NestedBool(job, "spec", "manualSelector"); manual {
		return
	}
	unstructured.RemoveNestedField(job, "spec", "selector")
	for _, label := range []string{"controller-uid", "job-name", batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		unstructured.RemoveNestedField(job, "metadata", "labels", label)
		unstructured.RemoveNestedField(job, "spec", "template", "metadata", "labels", label)
	}
}

// refused tells a server that refuses the object from one that refuses the person.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	if apierrors.IsForbidden(err) {
		return !strings.Contains(err.Error(), " cannot create resource ")
	}
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		strings.Contains(err.Error(), "admission webhook ")
}

// told matches a line of contract.Verdict.Warnings: feature, field, what was done,
// and why.
var told = regexp.MustCompile(`^([a-z-]+): (\S+?)(?: \(and \d+ more\))?(?: (?:was|will be) ([a-z]+)(?: on its pods)?)?: (.*)$`)

var doneTo = map[string]contract.Action{"added": contract.Inject, "changed": contract.Normalise, "removed": contract.Strip, "": contract.Warn}

// toldBy is the finding that a warning tells of.
func (o *Object) toldBy(warning string) Finding {
	f := contract.Finding{Feature: byServer, Action: contract.Warn, Detail: warning}
	f.Routine = strings.HasPrefix(warning, "made ready for AI nodes: ")
	message := warning
	if m := told.FindStringSubmatch(warning); m != nil {
		if _, ok := contract.Lookup(contract.Feature(m[1])); ok {
			f = contract.Finding{Feature: contract.Feature(m[1]), Field: m[2], Action: doneTo[m[3]], Detail: m[4]}
			message = strings.TrimPrefix(warning, m[1]+": ")
		}
	}
	found := o.finding(f)
	found.Message = message
	return found
}

// violation matches a line of contract.Verdict.Refusal.
var violation = regexp.MustCompile(`(?m)^- ([a-z-]+): (\S+): (.*?)\. Fix: (.*)$`)

// refusedBy are the findings of a refusal.
func (o *Object) refusedBy(err error) []Finding {
	var found []Finding
	for _, m := range violation.FindAllStringSubmatch(err.Error(), -1) {
		found = append(found, o.finding(contract.Finding{
			Feature: contract.Feature(m[1]), Field: m[2], Action: contract.Deny, Detail: m[3], Remedy: m[4],
		}))
	}
	if found != nil {
		return found
	}
	f := o.finding(contract.Finding{Feature: byServer, Action: contract.Deny, Detail: err.Error()})
	f.Message = strings.Join(strings.Fields(err.Error()), " ")
	return []Finding{f}
}
