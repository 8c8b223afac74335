package output

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"sigs.k8s.io/yaml"
)

// Formats are those that programs read, where what is shown is no object of a
// cluster.
var Formats = []string{"json", "yaml"}

// ValidateFormat tells a wrong format before anything else is done; none is one.
func ValidateFormat(format string) error {
	if format != "" && !slices.Contains(Formats, format) {
		return fmt.Errorf("unable to match a printer suitable for the output format %q, allowed formats are: json, yaml", format)
	}
	return nil
}

// Document writes v in one of Formats.
func Document(out io.Writer, format string, v any) error {
	marshal := yaml.Marshal
	if format == "json" {
		marshal = func(v any) ([]byte, error) {
			raw, err := json.MarshalIndent(v, "", "    ")
			return append(raw, '\n'), err
		}
	}
	raw, err := marshal(v)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = out.Write(raw)
	return err
}
