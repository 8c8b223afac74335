package contract_test

import (
	"encoding/json"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

// FuzzEvaluate: whatever comes in, there is no panic, the patch fits, twice is
// once, warnings keep their limits, and a refusal brings no patch.
//
//	go test ./api/contract -run '^$' -fuzz FuzzEvaluate -fuzztime 1m
func FuzzEvaluate(f *testing.F) {
	all, err := contracttest.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, fixture := range all {
		f.Add(fixture.JSON, false, false, false)
		f.Add(fixture.JSON, true, true, true)
	}
	f.Add([]byte(`{"metadata":null,"spec":{"containers":[null],"volumes":[null,{"name":"a"},{"name":"a"}],"nodeName":"ai-a"}}`), false, false, false)
	f.Fuzz(func(t *testing.T, raw []byte, optedIn, restricted, agent bool) {
		request := contract.Request{Namespace: contract.Namespace{OptedIn: optedIn, Restricted: restricted}}
		if agent {
			request.Policy.Profile = contract.ProfileAgent
		}
		before := judge(t, raw, request)
		if before == nil || len(before.Patch) == 0 {
			return
		}
		after := judge(t, applyRaw(t, raw, before), request)
		if after == nil {
			t.Fatalf("the patched pod can't be read any more: %s", raw)
		}
		if len(after.Patch) > 0 && !after.Denied() {
			t.Fatalf("the second pass changes something: %v\n%s", after.Patch, raw)
		}
	})
}

func judge(t *testing.T, raw []byte, request contract.Request) *contract.Verdict {
	pod, err := contract.Decode(raw)
	if err != nil || !contract.Targets(pod, request.Namespace) {
		return nil
	}
	request.Pod = pod
	v, err := request.Evaluate()
	if err != nil {
		t.Fatal(err)
	}
	if v.Denied() && (len(v.Patch) > 0 || v.Refusal() == "") {
		t.Fatalf("refused with a patch or without a word: %s", raw)
	}
	total := 0
	for _, w := range v.Warnings() {
		n := len([]rune(w))
		if total += n; n > 256 {
			t.Fatalf("a warning of %d runes: %s", n, w)
		}
	}
	if total > 4096 {
		t.Fatalf("warnings of %d runes", total)
	}
	return &v
}

func applyRaw(t *testing.T, raw []byte, v *contract.Verdict) []byte {
	ops, err := json.Marshal(v.Patch)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply(raw)
	if err != nil {
		t.Fatalf("the patch %s does not fit %s: %v", ops, raw, err)
	}
	return after
}
