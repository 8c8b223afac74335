package contract

import (
	"github.com/go-json-experiment/json"
	v1 "github.com/go-json-experiment/json/v1"
)

// asKubernetes reads JSON as the API server does: as encoding/json always has,
// but the case of a key matters.
var asKubernetes = json.JoinOptions(v1.DefaultOptionsV1(), json.MatchCaseInsensitiveNames(false))

// Unmarshal is k8s.io/apimachinery/pkg/util/json.Unmarshal for what is no interface,
// with the library that is encoding/json/v2 from Go 1.27 on, which reads in one
// pass. Into an interface a number comes as a float64.
func Unmarshal(raw []byte, into any) error { return json.Unmarshal(raw, into, asKubernetes) }
