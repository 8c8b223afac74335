// Package check judges pods and workloads by the support table before they are
// applied: the table and its rules are api/contract's, the same that the webhook
// judges by; here are files, their lines, and what an API server would have done
// to a pod before the webhook sees it.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	v1 "github.com/go-json-experiment/json/v1"

	"github.com/ainode/ainode/api/contract"
)

// Level is how grave a finding is.
type Level string

// The levels.
const (
	// Error: an AI node's pod is refused for it.
	Error Level = "error"
	// Warning: something is taken away, turned into something else, or will not work.
	Warning Level = "warning"
	// Info: something is added that the pod asks for, or that all pods get. It is no
	// finding.
	Info Level = "info"
)

// Finding is a contract.Finding and where it is.
type Finding struct {
	File string `json:"file"`
	// Line counts from 1; 0 of an object of a cluster.
	Line   int   `json:"line,omitempty"`
	Object Ref   `json:"object"`
	Level  Level `json:"level"`
	contract.Finding
	// Message is the finding in words.
	Message string `json:"message"`
}

// Settings are what a pod's own text does not tell.
type Settings struct {
	Policy contract.Policy
	// Namespace holds the facts about the namespace of every pod.
	Namespace contract.Namespace
	// InNamespace is where objects go that name no namespace; may be empty.
	InNamespace string
}

// Result is what was found of one object.
type Result struct {
	Object Object
	// Untouched is true of what is no AI node's matter.
	Untouched bool
	// Findings in the order of their lines, those of level Info too.
	Findings []Finding
	// Patched is the pod as it would be stored; nil where it is refused.
	Patched []byte
}

// Judge judges a pod or a workload.
func Judge(o Object, s Settings) (Result, error) {
	judge := judgeTemplate
	if o.isPod() {
		judge = judgePod
	}
	result, err := judge(o, s)
	if result.Untouched || o.Live() {
		return result, err
	}
	for _, f := range o.amounts() {
		if slices.ContainsFunc(result.Findings, func(told Finding) bool { return told.Field == f.Field }) {
			continue // of GPUs, by their row
		}
		result.Patched, result.Findings = nil, append(result.Findings, f)
	}
	result.Findings = inOrder(result.Findings)
	return result, err
}

func inOrder(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return findings
}

func judgePod(o Object, s Settings) (Result, error) {
	result := Result{Object: o, Patched: o.JSON}
	raw, moment := o.JSON, contract.Settled
	if !o.Live() {
		var err error
		if raw, err = defaulted(o.JSON); err != nil {
			return result, o.wrong("", err)
		}
		moment = contract.OnCreate
	}
	pod, err := decode(raw, o, s)
	if err != nil {
		return result, o.wrong("", err)
	}
	if !contract.Targets(pod, s.Namespace) {
		result.Untouched = true
		return result, nil
	}
	verdict, err := contract.Request{Pod: pod, Namespace: s.Namespace, Policy: s.Policy, Moment: moment}.Evaluate()
	if err != nil {
		return result, o.wrong("", err)
	}
	if result.Findings, err = o.addNotYet(o.findings(verdict, ""), raw, ""); err != nil {
		return result, o.wrong("", err)
	}
	result.Patched, err = patched(raw, verdict)
	return result, err
}

// judgeTemplate judges the pods that a workload makes. What is told is what the
// webhook tells when the workload is applied; of the kinds that it does not look
// at, it is the same.
func judgeTemplate(o Object, s Settings) (Result, error) {
	result := Result{Object: o}
	raw, field, err := o.template()
	if err != nil {
		return result, o.wrong(field, err)
	}
	pod, err := decode(raw, o, s)
	if err != nil {
		return result, o.wrong(field, err)
	}
	daemonSet := o.is("apps", "DaemonSet")
	if daemonSet {
		s.Namespace.OptedIn = false // a namespace's label does not mean DaemonSets
	}
	if !contract.Targets(pod, s.Namespace) {
		result.Untouched = true
		if daemonSet {
			result.Findings = o.everywhere(pod, field)
		}
		result.Patched, err = podOf(raw, o)
		return result, err
	}
	verdict, err := contract.Request{
		Pod: pod, Namespace: s.Namespace, Policy: s.Policy, Moment: contract.OnTemplate, DaemonSet: daemonSet,
	}.Evaluate()
	if err != nil {
		return result, o.wrong(field, err)
	}
	if result.Findings, err = o.addNotYet(o.findings(verdict, field+"."), raw, field+"."); err != nil {
		return result, o.wrong(field, err)
	}
	if verdict.Denied() {
		return result, nil
	}
	result.Patched, err = patchedTemplate(raw, o, s)
	return result, err
}

// decode reads a pod's JSON as the webhook does, which knows the namespace besides.
func decode(raw []byte, o Object, s Settings) (*contract.Pod, error) {
	pod, err := contract.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Ref, err)
	}
	pod.Metadata.Namespace = cmp.Or(o.Namespace, s.InNamespace)
	return pod, nil
}

// plainKeys takes a JSON pointer's escapes out of what a decoder calls a field.
var plainKeys = strings.NewReplacer("~1", "/", "~0", "~")

// wrong is an error with the place it is about.
func (o *Object) wrong(field string, err error) error {
	var mistyped *v1.UnmarshalTypeError
	if errors.As(err, &mistyped) {
		for part := range strings.SplitSeq(plainKeys.Replace(mistyped.Field), ".") {
			switch _, err := strconv.Atoi(part); {
			case err == nil:
				field += "[" + part + "]"
			case part != "" && !unicode.IsUpper(rune(part[0])): // decoders put the names of Go's embedded types in
				field = strings.TrimPrefix(field+"."+part, ".")
			}
		}
		if field == "" {
			field = strings.ToLower(o.Kind)
		}
		article := "a"
		if strings.HasPrefix(mistyped.Value, "object") || strings.HasPrefix(mistyped.Value, "array") {
			article = "an"
		}
		fix := ""
		if mistyped.Type != nil && mistyped.Type.Kind() == reflect.String && article == "a" {
			fix = ": put it in quotes"
		}
		err = fmt.Errorf("%s: %s: %s %s does not stand here%s", o.Ref, field, article, mistyped.Value, fix)
	}
	if o.Live() {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	return fmt.Errorf("%s:%d: %w", o.File, o.line(field), err)
}

// everywhere tells of a DaemonSet that selects no AI nodes, yet whose pods come
// onto them because it tolerates everything.
func (o *Object) everywhere(pod *contract.Pod, field string) []Finding {
	i := slices.IndexFunc(pod.Spec.Tolerations, contract.Tolerates)
	asked := *pod
	asked.Metadata.Labels = map[string]string{contract.ScheduleLabel: "true"}
	optedOut := pod.Metadata.Labels[contract.ScheduleLabel] == "false"
	if i < 0 || optedOut || !contract.Targets(&asked, contract.Namespace{}) {
		return nil
	}
	return []Finding{o.finding(contract.Finding{
		Feature: "daemonset", Field: fmt.Sprintf("%s.spec.tolerations[%d]", field, i), Action: contract.Warn,
		Detail: "it tolerates the AI nodes' taint, and its pods there stay Pending",
		Remedy: fmt.Sprintf("keep it off them by a node affinity: %s DoesNotExist", contract.NodeLabel),
	})}
}

func (o *Object) findings(verdict contract.Verdict, prefix string) []Finding {
	all := make([]Finding, len(verdict.Findings))
	for i, f := range verdict.Findings {
		if f.Feature != "daemonset" { // which is of the object itself
			f.Field = prefix + f.Field
		}
		if f.Feature == "service-account-token" && f.Routine && !o.Live() && find(o.node, f.Field) == nil {
			f.Field = prefix + "spec.automountServiceAccountToken" // of the volume that defaulted made
		}
		all[i] = o.finding(f)
	}
	return inOrder(all)
}

func (o *Object) finding(f contract.Finding) Finding {
	return Finding{File: o.File, Line: o.line(f.Field), Object: o.Ref, Level: levelOf(f), Finding: f, Message: words(f, o.isPod())}
}

func levelOf(f contract.Finding) Level {
	switch {
	case f.Action == contract.Deny:
		return Error
	case f.Routine || f.Action == contract.Inject:
		return Info
	default:
		return Warning
	}
}
