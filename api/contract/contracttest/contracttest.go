// Package contracttest holds a fixture for everything that a row of the support
// table does: a pod in YAML with the circumstances it is judged in. The tests of
// every program that speaks from the table can run over the same ones.
package contracttest

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
)

//go:embed testdata
var files embed.FS

// Fixture is one pod and its circumstances. Its name begins with what becomes of
// the pod by its feature: allowed, changed, warned or rejected.
type Fixture struct {
	Feature contract.Feature
	Name    string
	// Path of the file below this package.
	Path string
	// YAML of the pod as it stands in the file.
	YAML []byte
	// JSON of the pod.
	JSON []byte

	Namespace contract.Namespace
	Policy    contract.Policy
	Moment    contract.Moment
	DaemonSet bool
}

// Request is the fixture as the contract judges it.
func (f Fixture) Request() (contract.Request, error) {
	pod, err := contract.Decode(f.JSON)
	return contract.Request{Pod: pod, Namespace: f.Namespace, Policy: f.Policy, Moment: f.Moment, DaemonSet: f.DaemonSet}, err
}

// All reads the fixtures, in the order of their paths.
func All() ([]Fixture, error) {
	var all []Fixture
	err := fs.WalkDir(files, "testdata", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".yaml" {
			return err
		}
		f, err := read(p)
		if err != nil {
			return fmt.Errorf("read fixture %s: %w", p, err)
		}
		all = append(all, f)
		return nil
	})
	return all, err
}

func read(p string) (Fixture, error) {
	raw, err := files.ReadFile(p)
	if err != nil {
		return Fixture{}, err
	}
	f := Fixture{
		Feature: contract.Feature(path.Base(path.Dir(p))),
		Name:    strings.TrimSuffix(path.Base(p), ".yaml"),
		Path:    p, YAML: raw,
		Policy: contract.Policy{Overrides: map[contract.Feature]contract.Action{}},
	}
	if f.JSON, err = yaml.YAMLToJSON(raw); err != nil {
		return f, err
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if with, ok := strings.CutPrefix(lines.Text(), "# with: "); ok {
			if err := f.circumstance(with); err != nil {
				return f, err
			}
		}
	}
	return f, f.Policy.Validate()
}

// circumstance reads one "# with:" line of a fixture.
func (f *Fixture) circumstance(with string) error {
	key, value, _ := strings.Cut(with, " ")
	switch key {
	case "restricted":
		f.Namespace.Restricted = true
	case "opted-in":
		f.Namespace.OptedIn = true
	case "daemonset":
		f.DaemonSet, f.Moment = true, contract.OnTemplate
	case "moment":
		f.Moment = contract.Moment(value)
	case "profile":
		f.Policy.Profile = contract.Profile(value)
	case "nameserver":
		f.Policy.Nameservers = append(f.Policy.Nameservers, value)
	case "unreachable-seconds":
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("circumstance %q: %w", with, err)
		}
		f.Policy.UnreachableSeconds = seconds
	case "feature":
		feature, mode, _ := strings.Cut(value, "=")
		f.Policy.Overrides[contract.Feature(feature)] = contract.Action(mode)
	default:
		return fmt.Errorf("circumstance %q is not known", with)
	}
	return nil
}
