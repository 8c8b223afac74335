package cli

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Kinds that may stand before a name: -o name prints them, and so do the verbs.
var (
	nodeKinds   = []string{"ainode", "ainodes", "ainode." + contract.Group, "node", "nodes"}
	configKinds = []string{"clusterconfig", "clusterconfigs", "clusterconfig." + contract.Group}
)

// nodeNames are the AI nodes of a command line, each once.
func nodeNames(verb string, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, usageError(verb, "the name of an AI node is needed (see: kubectl ainode list)")
	}
	var names []string
	for _, arg := range args {
		name, ok := bare(arg, nodeKinds)
		if !ok {
			return nil, remedy.New("See all", "kubectl ainode list", "%q is no name of an AI node", arg)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// configName is the one config of a command line.
func configName(verb string, args []string) (string, error) {
	if len(args) != 1 {
		return "", usageError(verb, "one name of a config is needed, %d given", len(args))
	}
	name, ok := bare(args[0], configKinds)
	if !ok {
		return "", remedy.New("See all", "kubectl ainode configs", "%q is no name of a config", args[0])
	}
	return name, nil
}

// bare is a name without its kind. It is not ok if an API server could not even be
// asked for it; whether there is such an object is seen there.
func bare(arg string, kinds []string) (name string, ok bool) {
	name = arg
	if kind, rest, found := strings.Cut(arg, "/"); found && slices.Contains(kinds, strings.ToLower(kind)) {
		name = rest
	}
	ok = name != "" && len(content.IsPathSegmentName(name)) == 0 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f })
	return name, ok
}
