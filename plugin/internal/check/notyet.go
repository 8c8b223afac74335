package check

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// notYetIntro begins what is told of a field that is not there yet.
const notYetIntro = "AI nodes do not have it yet: "

// notYet tells of fields whose rows are promised and not kept yet (Row.NotYet): the
// webhook lets such a pod pass, and it then waits on its node. raw is a pod or a pod
// template; prefix stands before its fields.
func notYet(raw []byte, rows []contract.Row, prefix string) ([]contract.Finding, error) {
	var pod struct {
		Spec corev1.PodSpec `json:"spec"`
	}
	var found []contract.Finding
	for _, row := range rows {
		if row.NotYet == "" || len(row.Claims) == 0 {
			continue
		}
		if pod.Spec.Containers == nil {
			if err := contract.Unmarshal(raw, &pod); err != nil {
				return nil, err
			}
		}
		for _, field := range claimed(reflect.ValueOf(pod.Spec), "spec", row.Claims) {
			found = append(found, contract.Finding{
				Feature: row.Feature, Field: prefix + field, Action: contract.Warn, Detail: notYetIntro + row.NotYet,
				Remedy: fmt.Sprintf("leave it out for now (kubectl ainode explain %s)", row.Feature),
			})
		}
	}
	return found, nil
}

// claimed are the paths below v of the fields that claims name, as Type.Field of
// the core API, and that are set.
func claimed(v reflect.Value, path string, claims []string) []string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return claimed(v.Elem(), path, claims)
	case reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, claimed(v.Index(i), fmt.Sprintf("%s[%d]", path, i), claims)...)
		}
		return all
	case reflect.Struct:
	default:
		return nil
	}
	var all []string
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() || v.Field(i).IsZero() {
			continue
		}
		at := path
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" { // else it is inlined
			at += "." + name
		}
		if slices.Contains(claims, v.Type().Name()+"."+field.Name) {
			all = append(all, at)
			continue
		}
		all = append(all, claimed(v.Field(i), at, claims)...)
	}
	return all
}

// addNotYet adds what notYet tells of an object, unless it is refused all the same.
func (o *Object) addNotYet(findings []Finding, raw []byte, prefix string) ([]Finding, error) {
	if slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Error }) {
		return findings, nil
	}
	more, err := notYet(raw, contract.Table, prefix)
	if err != nil {
		return findings, err
	}
	for _, f := range more {
		findings = append(findings, o.finding(f))
	}
	return inOrder(findings), nil
}
