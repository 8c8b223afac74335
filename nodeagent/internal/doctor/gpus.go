package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
)

// driver reads the cards as the agent does when it starts.
func driver(_ context.Context, s *sight) []diagnosis.Finding {
	if machine := s.Config.SimulateGPUs; machine != "" {
		if layout := s.Config.SimulateMIG; layout != "" {
			machine += " cut into MIG slices (" + layout + ")"
		}
		return saw("simulated: " + machine + "; the machine's own cards are not looked at")
	}
	cards, err := gpu.Look(s.NVML)
	if errors.Is(err, gpu.ErrNone) {
		return found(Warning, err.Error(), "the node has no card to give, and pods that ask for one never run here",
			"See whether the driver is loaded:  nvidia-smi", "Try without cards:  ainode-agent run --simulate-gpus dgxh200")
	}
	if err != nil {
		return found(Error, err.Error(), "the node has no card to give while the driver is like that", "See what the driver says:  nvidia-smi; dmesg | grep -i nvrm")
	}
	var all []diagnosis.Finding
	for _, b := range cards.Broken {
		all = append(all, found(Error, fmt.Sprintf("card %d can't be used: %s", b.Index, b.Cause), "no pod gets this card", "See what the driver says:  nvidia-smi; dmesg | grep -i nvrm")...)
	}
	s.devices = len(cards.Devices())
	if n := len(cards.Cards); n > 0 {
		all = append(all, saw(fmt.Sprintf("%d × %s, driver %s, CUDA %s", n, cards.Cards[0].Product, cards.DriverVersion, cards.CUDAVersion))...)
	}
	return slices.Concat(all, exclusive(cards), slicing(cards))
}

// exclusive tells of cards that serve one process at a time.
func exclusive(cards gpu.Found) []diagnosis.Finding {
	var all []diagnosis.Finding
	for _, c := range cards.Cards {
		if c.Exclusive {
			all = append(all, found(Warning, fmt.Sprintf("card %d: its compute mode lets one process at a time use it", c.Index),
				"a pod's second process that uses it fails: the card is busy or unavailable", fmt.Sprintf("Allow more:  nvidia-smi -i %d -c DEFAULT", c.Index))...)
		}
	}
	return all
}

// slicing tells how cards are cut, and of those that wait for somebody.
func slicing(cards gpu.Found) []diagnosis.Finding {
	var all []diagnosis.Finding
	kinds, whole := map[string]int{}, 0
	for _, c := range cards.Cards {
		for _, s := range c.Slices {
			kinds[string(s.Resource())]++
		}
		mode, given := "off", "in slices"
		if !c.MIG {
			mode, given = "on", "as a whole"
			whole++
		}
		if c.MIGPending {
			all = append(all, found(Warning, fmt.Sprintf("card %d: MIG mode is to be turned %s, and is not yet", c.Index, mode), "until it is reset it is given "+given,
				"Reset it when no pod has it:  nvidia-smi -i "+strconv.Itoa(c.Index)+" --gpu-reset")...)
		}
		if c.MIG && len(c.Slices) == 0 {
			all = append(all, found(Warning, fmt.Sprintf("card %d is in MIG mode and has no slices", c.Index), "no pod gets this card",
				"See how it can be cut:  nvidia-smi mig -i "+strconv.Itoa(c.Index)+" -lgip",
				"Cut it, for example:  nvidia-smi mig -i "+strconv.Itoa(c.Index)+" -cgi 1g.10gb -C",
				"Or make it whole:  nvidia-smi -i "+strconv.Itoa(c.Index)+" -mig 0")...)
		}
	}
	if len(kinds) == 0 {
		return all
	}
	var texts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		texts = append(texts, fmt.Sprintf("%d × %s", kinds[kind], kind))
	}
	return append(all, saw(fmt.Sprintf("%d in MIG mode, which pods ask for as %s; %d whole, as %s",
		len(cards.Cards)-whole, strings.Join(texts, ", "), whole, contract.GPUResource))...)
}

// injection tells how cards get into containers, or that they don't.
func injection(_ context.Context, s *sight) []diagnosis.Finding {
	simulated := s.Config.SimulateGPUs != ""
	if s.runtimeErr != nil || !simulated && s.devices == 0 {
		return nil // told already, or there are no cards to give
	}
	by := s.status.Injection()
	switch {
	case by.CDI && by.ByDefault:
		return saw("by CDI; " + s.status.Containerd.Handlers.Default + ", the runtime's default, is told to add none")
	case by.CDI:
		return saw("by CDI")
	case by.Handler != "" && !simulated:
		return saw(fmt.Sprintf("by the runtime handler %s and NVIDIA_VISIBLE_DEVICES: %s %s has no CDI, or has it turned off", by.Handler, s.status.Name, s.status.Version))
	}
	fix := []string{"Install containerd 2 (https://containerd.io/downloads), then:  systemctl restart containerd",
		"From containerd 1.7 on, set enable_cdi = true in /etc/containerd/config.toml, then:  systemctl restart containerd"}
	if !simulated {
		fix = append(fix, "Or let NVIDIA's runtime do it:  nvidia-ctk runtime configure --runtime=containerd && systemctl restart containerd")
	}
	return found(Error, fmt.Sprintf("%s %s has no CDI, or has it turned off, and no runtime handler of NVIDIA's", s.status.Name, s.status.Version),
		"no container gets a card", fix...)
}

// specs looks at the CDI spec: one that the agent writes when it starts, a folder that
// the runtime reads, and the hook that the spec calls.
func specs(_ context.Context, s *sight) []diagnosis.Finding {
	var all []diagnosis.Finding
	dir, config := s.Config.CDIDir, s.status.Containerd
	if s.runtimeErr == nil && !s.status.Injection().CDI {
		return nil // nobody reads it
	}
	if len(config.CDISpecDirs) > 0 && !slices.ContainsFunc(config.CDISpecDirs, func(d string) bool { return same(d, dir) }) {
		all = append(all, found(Error, fmt.Sprintf("containerd reads CDI specs from %v, the agent writes them to %s", config.CDISpecDirs, dir), "no container gets a card",
			"Write them where they are read:  ainode-agent run --cdi-dir "+config.CDISpecDirs[0])...)
	}
	simulated := s.Config.SimulateGPUs != ""
	if !simulated && s.devices == 0 {
		return all // there are no cards to give
	}
	if !simulated {
		if _, err := gpu.FindHook(); err != nil {
			all = append(all, found(Error, err.Error(), "the agent does not start without", "Install it:  apt-get install nvidia-container-toolkit-base")...)
		}
	}
	path := gpu.SpecPath(dir, simulated)
	spec, err := cdi.ReadSpec(path, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !s.running:
		all = append(all, saw("the agent writes the spec when it starts")...)
	case errors.Is(err, fs.ErrNotExist) || err == nil && spec == nil:
		all = append(all, found(Error, path+" is not there", "no container gets a card", "Have it written again:  systemctl restart ainode-agent")...)
	case err != nil:
		all = append(all, found(Error, fmt.Sprintf("%s can't be read: %v", path, err), "no container gets a card", "Have it written again:  systemctl restart ainode-agent")...)
	case !simulated && devices(spec) != s.devices:
		all = append(all, found(Error, fmt.Sprintf("%s names %d cards and slices, the driver shows %d", path, devices(spec), s.devices),
			"what came or went since the agent started is given to nobody, or to a pod that then fails", "Have them read again:  systemctl restart ainode-agent")...)
	default:
		all = append(all, saw(fmt.Sprintf("%s names %d cards and slices", path, devices(spec)))...)
	}
	return all
}

// outcasts tells which cards the agent keeps from pods for what befell them.
func outcasts(_ context.Context, s *sight) []diagnosis.Finding {
	out, err := gpuhealth.Outcasts(s.Config.StateDir.GPUs())
	if err != nil {
		return found(Warning, err.Error(), "an agent that starts with it gives no card to pods until somebody vouches for it: which were to be replaced is not known",
			"If all of them are well, and no agent runs, remove it:  rm "+s.Config.StateDir.GPUs())
	}
	var all []diagnosis.Finding
	for _, o := range out {
		if o.Gone {
			continue
		}
		fix := []string{"See what the driver says:  nvidia-smi; dmesg | grep -i nvrm"}
		if o.Class == gpuhealth.Replace {
			fix = append(fix, "Replace it. If it is well after all:  ainode-agent readmit "+o.UUID)
		}
		all = append(all, found(Warning, o.Text, "no pod gets it: it is "+o.Until, fix...)...)
	}
	return all
}

// devices counts the cards and slices of a spec; "all" is none.
func devices(spec *cdi.Spec) int {
	n := 0
	for _, d := range spec.Devices {
		if d.Name != "all" {
			n++
		}
	}
	return n
}

// same reports whether two paths are one folder: /var/run is /run on most systems.
func same(a, b string) bool {
	if a == b {
		return true
	}
	one, err1 := os.Stat(a)
	other, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}
