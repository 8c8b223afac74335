package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

// The exit codes of nvidia-smi.
const (
	exitOK      = 0
	exitInvalid = 2
	exitNone    = 6
	exitOther   = 255
)

const usage = `SIMULATED nvidia-smi: this container was given simulated GPUs. They can be listed
and nothing can be computed on them. It is not NVIDIA's program and knows only:

  nvidia-smi                                        a table of the cards
  nvidia-smi -L                                     one line a card or MIG slice
  nvidia-smi --query-gpu=FIELD,… --format=csv[,noheader][,nounits]
             fields: ` + "%s" + `
  -i, --id=N|UUID,…                                 only these cards
`

type options struct {
	list, help                 bool
	query                      []string
	csv, noHeader, withoutUnit bool
	only                       []string
}

func run(args []string, dir string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "%v\n\n", err)
		fmt.Fprintf(stderr, usage, strings.Join(fieldNames(), " "))
		return exitInvalid
	}
	if o.help {
		fmt.Fprintf(stdout, usage, strings.Join(fieldNames(), " "))
		return exitOK
	}
	cards, err := simulated.Read(dir)
	if err != nil {
		fmt.Fprintf(stderr, "nvidia-smi (simulated): %v\n", err)
		return exitOther
	}
	devices := number(cards)
	if len(devices) == 0 {
		fmt.Fprintln(stdout, "No devices were found")
		return exitNone
	}
	if devices, err = choose(devices, o.only); err != nil {
		fmt.Fprintln(stdout, err)
		return exitNone
	}
	switch {
	case o.list:
		list(stdout, devices)
	case o.query != nil:
		query(stdout, devices, o)
	default:
		table(stdout, devices)
	}
	return exitOK
}

func parse(args []string) (options, error) {
	var o options
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		if !joined && (name == "-i" || name == "--id") {
			if i++; i == len(args) {
				return o, fmt.Errorf("option %q needs a value", name)
			}
			value = args[i]
		}
		switch name {
		case "-h", "--help":
			o.help = true
		case "-L", "--list-gpus":
			o.list = true
		case "-i", "--id":
			o.only = strings.Split(value, ",")
		case "--query-gpu":
			for field := range strings.SplitSeq(value, ",") {
				field = strings.TrimSpace(field)
				if fields[field] == nil {
					return o, fmt.Errorf("Field %q is not a valid field to query (in the SIMULATED nvidia-smi).", field)
				}
				o.query = append(o.query, field)
			}
		case "--format":
			for part := range strings.SplitSeq(value, ",") {
				switch strings.TrimSpace(part) {
				case "csv":
					o.csv = true
				case "noheader":
					o.noHeader = true
				case "nounits":
					o.withoutUnit = true
				default:
					return o, fmt.Errorf("format %q is not simulated", part)
				}
			}
		default:
			return o, fmt.Errorf("option %q is not simulated", name)
		}
	}
	if o.query != nil && !o.csv {
		return o, fmt.Errorf("--query-gpu needs --format=csv")
	}
	return o, nil
}

// device is a card as it is numbered in the container, with the slices of it that the
// container was given where that is not the whole.
type device struct {
	simulated.Card
	number int
	count  int
	slices []*simulated.Slice
}

// number counts the cards from 0, as the driver does in a container.
func number(cards []simulated.Card) []device {
	var devices []device
	for _, c := range cards { // those of one card follow each other
		last := len(devices) - 1
		if last < 0 || devices[last].UUID != c.UUID {
			devices, last = append(devices, device{Card: c, number: last + 1}), last+1
		}
		if c.Slice != nil {
			devices[last].slices = append(devices[last].slices, c.Slice)
		}
	}
	for i := range devices {
		devices[i].count = len(devices)
	}
	return devices
}

func choose(devices []device, only []string) ([]device, error) {
	if only == nil {
		return devices, nil
	}
	var chosen []device
	for _, id := range only {
		found := false
		for _, d := range devices {
			if id == strconv.Itoa(d.number) || id == d.UUID {
				chosen, found = append(chosen, d), true
			}
		}
		if !found {
			return nil, fmt.Errorf("No devices were found: %q is none of this container's simulated cards", id)
		}
	}
	return chosen, nil
}

// name of a card, marked wherever it is shown.
func (d device) name() string { return d.Product + " [SIMULATED]" }
