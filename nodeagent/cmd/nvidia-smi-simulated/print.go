package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// list prints what nvidia-smi -L does: exactly one line a card, ending with its UUID,
// and below it one a MIG slice.
func list(w io.Writer, devices []device) {
	for _, d := range devices {
		fmt.Fprintf(w, "GPU %d: %s (UUID: %s)\n", d.number, d.name(), d.UUID)
		for i, s := range d.slices {
			fmt.Fprintf(w, "  MIG %-14s Device %2d: (UUID: %s)\n", s.Profile, i, s.UUID)
		}
	}
}

// field is one that --query-gpu knows.
type field struct {
	unit  string
	value func(device) string
}

func mib(bytes uint64) string { return strconv.FormatUint(bytes>>20, 10) }

var fields = map[string]*field{
	"count":          {value: func(d device) string { return strconv.Itoa(d.count) }},
	"index":          {value: func(d device) string { return strconv.Itoa(d.number) }},
	"uuid":           {value: func(d device) string { return d.UUID }},
	"gpu_uuid":       {value: func(d device) string { return d.UUID }},
	"name":           {value: device.name},
	"gpu_name":       {value: device.name},
	"driver_version": {value: func(d device) string { return d.DriverVersion }},
	"compute_cap":    {value: func(d device) string { return d.ComputeCapability }},
	"memory.total":   {unit: "MiB", value: func(d device) string { return mib(d.MemoryBytes) }},
	"memory.free":    {unit: "MiB", value: func(d device) string { return mib(d.MemoryBytes) }},
	"memory.used":    {unit: "MiB", value: func(device) string { return "0" }},
	"utilization.gpu": {unit: "%", value: func(d device) string {
		if d.slices != nil {
			return "[N/A]" // as of a card in MIG mode
		}
		return "0"
	}},
	"mig.mode.current": {value: func(d device) string {
		if d.slices != nil {
			return "Enabled"
		}
		return "Disabled"
	}},
}

func fieldNames() []string { return slices.Sorted(maps.Keys(fields)) }

func query(w io.Writer, devices []device, o options) {
	if !o.noHeader {
		var header []string
		for _, name := range o.query {
			if unit := fields[name].unit; unit != "" {
				name += " [" + unit + "]"
			}
			header = append(header, name)
		}
		fmt.Fprintln(w, strings.Join(header, ", "))
	}
	for _, d := range devices {
		var row []string
		for _, name := range o.query {
			f := fields[name]
			value := f.value(d)
			if f.unit != "" && !o.withoutUnit && value != "[N/A]" {
				value += " " + f.unit
			}
			row = append(row, value)
		}
		fmt.Fprintln(w, strings.Join(row, ", "))
	}
}

const width = 87

// table prints a table like nvidia-smi's, under a line that says what it is.
func table(w io.Writer, devices []device) {
	first := devices[0]
	line := "+" + strings.Repeat("-", width) + "+"
	row := func(text string) {
		fmt.Fprintf(w, "| %-*s |\n", width-2, text)
	}
	fmt.Fprintf(w, "SIMULATED: the GPUs of a %s that is not there; nothing computes on them.\n", first.Machine)
	fmt.Fprintln(w, line)
	row(fmt.Sprintf("NVIDIA-SMI (SIMULATED)     Driver Version: %-14s CUDA Version: %s", first.DriverVersion, first.CUDAVersion))
	fmt.Fprintln(w, line)
	row(fmt.Sprintf("%3s  %-40s %22s  %8s", "GPU", "Name", "Memory-Usage", "GPU-Util"))
	fmt.Fprintln(w, line)
	for _, d := range devices {
		row(fmt.Sprintf("%3d  %-40s %22s  %8s", d.number, d.name(), "0MiB / "+mib(d.MemoryBytes)+"MiB", "0%"))
		row(fmt.Sprintf("%3s  %s", "", d.UUID))
		for i, s := range d.slices {
			row(fmt.Sprintf("%3s  %-40s %22s", "", fmt.Sprintf("MIG %d  %s", i, s.Profile), "0MiB / "+mib(s.MemoryBytes)+"MiB"))
			row(fmt.Sprintf("%3s  %s", "", s.UUID))
		}
	}
	fmt.Fprintln(w, line)
	row("Processes: none (SIMULATED)")
	fmt.Fprintln(w, line)
}
