package gpu

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxb200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/uuid"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

var mocks = map[string]func() *server.Server{
	"dgxa100": dgxa100.New,
	"dgxb200": dgxb200.New,
	"dgxh100": dgxh100.New,
	"dgxh200": dgxh200.New,
}

// Machines are those that can be simulated.
func Machines() []string { return slices.Sorted(maps.Keys(mocks)) }

// simulatedNamespace is the UUID namespace of simulated cards (RFC 9562, version 5).
var simulatedNamespace = uuid.NewSHA1(uuid.NameSpaceDNS, []byte(cdiClassSimulated+"."+cdiVendor))

// simulate makes m a machine of the mock's cards.
func (m *Machine) simulate(o *Options) error {
	mock, ok := mocks[o.Simulate]
	if !ok {
		return fmt.Errorf("machine %q can't be simulated; choose one of %s", o.Simulate, strings.Join(Machines(), ", "))
	}
	if o.MachineID == "" {
		return errors.New("simulate GPUs: the machine's id is missing, from which the cards' UUIDs are derived")
	}
	info, err := os.Stat(o.NvidiaSMI)
	if err != nil {
		return fmt.Errorf("simulate GPUs: find the simulated nvidia-smi: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("simulate GPUs: %q is not a program", o.NvidiaSMI)
	}
	if o.StateDir == "" {
		o.StateDir = filepath.Join(o.CDIDir, "simulated")
	}
	if m.lib == nil {
		s := stable(mock(), o.MachineID, o.Simulate)
		layout, err := simulated.ParseLayout(o.SimulateMIG)
		if err == nil {
			err = complete(s, filepath.Join(o.StateDir, faultsFile)).cut(layout)
		}
		if err != nil {
			return fmt.Errorf("simulate MIG slices: %w", err)
		}
		m.lib = s
	}
	m.kind, m.simulated = cdiVendor+"/"+cdiClassSimulated, o.Simulate
	return nil
}

// stable gives the mock's cards UUIDs that are the same at each start: by itself
// it makes new ones each time, and pods would hold cards that are not there.
func stable(s *server.Server, machineID, machine string) *server.Server {
	for i, device := range s.Devices {
		if d, ok := device.(*server.Device); ok {
			name := machineID + "/" + machine + "/" + strconv.Itoa(i)
			d.UUID = "GPU-" + uuid.NewSHA1(simulatedNamespace, []byte(name)).String()
		}
	}
	return s
}

// writeCards writes one file a card, and one a slice. Files of other cards stay: a
// container that still runs may have them.
func writeCards(directory, machine string, found Found) error {
	if err := os.MkdirAll(directory, 0o755); err != nil { // any user of a container reads it
		return fmt.Errorf("make the directory of simulated cards: %w", err)
	}
	for _, c := range found.Cards {
		card := simulated.Card{
			UUID: c.UUID, Index: c.Index, Product: c.Product, MemoryBytes: c.MemoryBytes,
			ComputeCapability: fmt.Sprintf("%d.%d", c.CUDAMajor, c.CUDAMinor),
			Machine:           machine, DriverVersion: found.DriverVersion, CUDAVersion: found.CUDAVersion,
		}
		if err := card.Write(directory); err != nil {
			return err
		}
		for _, s := range c.Slices {
			card.Slice = &simulated.Slice{UUID: s.UUID, Profile: s.Profile, Index: s.Index, MemoryBytes: s.MemoryBytes()}
			if err := card.Write(directory); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSimulatedSpec writes a CDI spec by which a container that is given a card
// finds the card's file, and the simulated nvidia-smi.
func writeSimulatedSpec(o Options, kind, machine string, found Found) error {
	bind := func(host, container string) *specs.Mount {
		return &specs.Mount{HostPath: host, ContainerPath: container, Options: []string{"ro", "nosuid", "nodev", "bind"}}
	}
	spec := &specs.Spec{
		Kind: kind,
		ContainerEdits: specs.ContainerEdits{
			Env:    []string{simulated.Env + "=" + machine},
			Mounts: []*specs.Mount{bind(o.NvidiaSMI, "/usr/bin/nvidia-smi")},
		},
	}
	for _, d := range found.Devices() {
		file := d.UUID + simulated.Extension
		spec.Devices = append(spec.Devices, specs.Device{
			Name: d.UUID,
			ContainerEdits: specs.ContainerEdits{
				Mounts: []*specs.Mount{bind(filepath.Join(o.StateDir, file), filepath.Join(simulated.Dir, file))},
			},
		})
	}
	version, err := specs.MinimumRequiredVersion(spec)
	if err != nil {
		return fmt.Errorf("describe the simulated cards for CDI: %w", err)
	}
	spec.Version = version
	cache, err := cdi.NewCache(cdi.WithSpecDirs(o.CDIDir), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("open the directory of CDI specs: %w", err)
	}
	if err := cache.WriteSpec(spec, filepath.Base(SpecPath(o.CDIDir, true))); err != nil {
		return fmt.Errorf("write the CDI spec of the simulated cards: %w", err)
	}
	return nil
}
