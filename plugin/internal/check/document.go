package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// document is one YAML or JSON document of a file: what it says, as kubectl reads
// it, and where each of its lines stands.
type document struct {
	json json.RawMessage
	node *yaml.Node
}

// fault is something that can't be read, and where.
func fault(file string, line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", file, line, fmt.Errorf(format, args...))
}

// documents reads every document of text. A document that can't be read does not
// keep the others from being judged.
func documents(file string, text []byte) ([]document, []error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var all []document
	var errs []error
	for _, p := range pieces(text) {
		some, err := p.read(file)
		all = append(all, some...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	return all, errs
}

// piece is the text from one document marker to the next.
type piece struct {
	text  []byte
	above int // lines of the file above it
}

// pieces splits at the lines that begin with "---", as kubectl does: in YAML such a
// line is a document's end even within a block of text, and in JSON there is none.
func pieces(text []byte) []piece {
	var all []piece
	begin, above, line := 0, 0, 0
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if at > begin && marks(text[at:end]) {
			all = append(all, piece{text[begin:at], above})
			begin, above = at, line
		}
		at = end
	}
	return append(all, piece{text[begin:], above})
}

func marks(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// blank is true of a piece of comments and directives alone.
func (p piece) blank() bool {
	for line := range strings.Lines(string(p.text)) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "---"))
		if line != "" && line[0] != '#' && line[0] != '%' && line != "..." {
			return false
		}
	}
	return true
}

func (p piece) read(file string) ([]document, error) {
	if p.blank() {
		return nil, nil
	}
	if body := bytes.TrimLeft(bytes.TrimPrefix(p.text, []byte("---")), " \t\r\n"); len(body) > 0 && body[0] == '{' {
		all, err := p.readJSON(file)
		if err == nil {
			return all, nil
		}
		if strings.HasSuffix(file, ".json") {
			return nil, err
		}
	}
	var node yaml.Node
	if err := yaml.Unmarshal(p.text, &node); err != nil {
		line, why := p.explain(err)
		return nil, fault(file, line, "%s", why)
	}
	// The text itself is read by the reader that kubectl has, whose rules for yes,
	// no and octal numbers are those of YAML 1.1.
	raw, err := sigsyaml.YAMLToJSON(p.text)
	if err != nil {
		line, why := p.explain(err)
		return nil, fault(file, line, "%s", why)
	}
	if node.Kind != yaml.DocumentNode || len(node.Content) != 1 || string(raw) == "null" {
		return nil, nil
	}
	p.shift(&node)
	return []document{{raw, node.Content[0]}}, nil
}

// shift turns the lines of a piece into those of its file.
func (p piece) shift(node *yaml.Node) {
	node.Line += p.above
	for _, inner := range node.Content {
		p.shift(inner)
	}
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// explain takes the line out of a YAML error.
func (p piece) explain(err error) (int, string) {
	why := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	line := p.above + 1
	if m := yamlLine.FindStringSubmatchIndex(why); m != nil {
		n, err := strconv.Atoi(why[m[2]:m[3]])
		if err == nil {
			line, why = p.above+n, why[:m[0]]+why[m[1]:]
		}
	}
	return line, "not YAML: " + strings.TrimPrefix(why, "yaml: ")
}

// readJSON reads one JSON document after the other.
func (p piece) readJSON(file string) ([]document, error) {
	text := p.text
	if marks(text) {
		text = append([]byte("   "), text[3:]...)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	lines := &counter{text: text, line: p.above + 1}
	var all []document
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		var node *yaml.Node
		begin := int(decoder.InputOffset()) - 1
		if err == nil {
			node, err = jsonNode(decoder, token, lines)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fault(file, lines.at(int(decoder.InputOffset())), "not JSON: %w", err)
		}
		all = append(all, document{bytes.Clone(text[max(begin, 0):decoder.InputOffset()]), node})
	}
}

// counter says on which line an offset stands; offsets only grow.
type counter struct {
	text []byte
	seen int
	line int
}

func (c *counter) at(offset int) int {
	offset = min(offset, len(c.text))
	if offset > c.seen {
		c.line += bytes.Count(c.text[c.seen:offset], []byte("\n"))
		c.seen = offset
	}
	return c.line
}

// jsonNode makes the node of the value that begins with token.
func jsonNode(decoder *json.Decoder, token json.Token, lines *counter) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: lines.at(int(decoder.InputOffset()))}
	switch token {
	case json.Delim('{'):
		node.Kind = yaml.MappingNode
	case json.Delim('['):
		node.Kind = yaml.SequenceNode
	default:
		node.Value = fmt.Sprint(token)
		return node, nil
	}
	for decoder.More() { // keys and values come one after the other, as in a mapping node
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		inner, err := jsonNode(decoder, token, lines)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, inner)
	}
	_, err := decoder.Token()
	return node, err
}
