package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ainode/ainode/api/contract"
)

// amounts tells of the quantities that an API server can't read, or would work out
// for minutes: 1e-999999999. They are no row's matter, since no webhook ever sees
// such a pod.
func (o *Object) amounts() []Finding {
	content, err := loose(o.JSON)
	if err != nil {
		return nil // whoever decodes it next says so
	}
	var found []Finding
	walk(content, "", func(field string, value any) {
		text := fmt.Sprint(value)
		if _, err := contract.Quantity(text); err == nil {
			return
		}
		if runes := []rune(text); len(runes) > 40 {
			text = string(runes[:39]) + "…"
		}
		found = append(found, o.finding(contract.Finding{
			Feature: byServer, Field: field, Action: contract.Deny,
			Detail: fmt.Sprintf("%q is no amount that an API server can read", text),
			Remedy: "write a number with a unit, for example 500m or 2Gi",
		}))
	})
	return found
}

// walk calls amount for every quantity below value. Keys are gone through in their
// order, so that the findings have one.
func walk(value any, field string, amount func(field string, value any)) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			at := strings.TrimPrefix(field+"."+key, ".")
			if strings.ContainsAny(key, ".[") {
				at = field + "[" + key + "]"
			}
			switch list, isList := value[key].(map[string]any); {
			case slices.Contains([]string{"metadata", "matchLabels", "nodeSelector"}, key): // of any words
			case isList && slices.Contains([]string{"limits", "requests", "overhead"}, key):
				for _, name := range slices.Sorted(maps.Keys(list)) {
					if list[name] != nil {
						amount(at+"["+name+"]", list[name])
					}
				}
			case slices.Contains([]string{"sizeLimit", "divisor"}, key) && value[key] != nil:
				amount(at, value[key])
			default:
				walk(value[key], at, amount)
			}
		}
	case []any:
		for i := range value {
			walk(value[i], fmt.Sprintf("%s[%d]", field, i), amount)
		}
	}
}

// loose decodes an object with its numbers as they are written: one that no float
// holds is still an amount to be told of.
func loose(raw []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var content map[string]any
	if err := decoder.Decode(&content); err != nil {
		return nil, fmt.Errorf("decode pod: %w", err)
	}
	return content, nil
}
