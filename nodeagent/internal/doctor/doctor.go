// Package doctor looks at a machine from its administrator's side: whether it has
// all that the agent needs, whether the agent runs, and what it is joined and bound
// to. It changes nothing, needs no running agent, and prints no secret.
package doctor

import (
	"context"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// The severities of api/diagnosis.
const (
	OK      = diagnosis.OK
	Warning = diagnosis.Warning
	Error   = diagnosis.Error
)

// Case is the machine that is looked at.
type Case struct {
	// Config is how the agent is run here.
	Config config.Run
	// Root is "/" outside tests.
	Root string
	// NVML is the driver library; nil is the machine's own.
	NVML  nvml.Interface
	Clock clock.PassiveClock
}

// sight is what the checks of one look see.
type sight struct {
	Case
	store      binding.Store
	joined     *binding.Joined     // nil on a machine that has not joined
	credential *binding.Credential // nil where it is bound to nothing
	running    bool                // an agent holds the state directory
	runtime    *cri.Runtime        // nil if it does not answer
	runtimeErr error
	status     runtimeStatus
	devices    int // cards and slices that the driver shows
}

// check is one thing that is looked at. Ids are API: people write them in scripts.
type check struct {
	id, area string
	look     func(context.Context, *sight) []diagnosis.Finding
}

// The areas.
const (
	areaMachine = "machine"
	areaRuntime = "container runtime"
	areaGPUs    = "GPUs"
	areaStorage = "storage"
	areaAgent   = "agent"
)

var checks = []check{
	{"root", areaMachine, root},
	{"cgroups", areaMachine, cgroups},
	{"time", areaMachine, synchronised},
	{"pressure", areaMachine, pressure},
	{"runtime", areaRuntime, runtimeAnswers},
	{"runc", areaRuntime, runc},
	{"cgroup-driver", areaRuntime, cgroupDriver},
	{"cni", areaRuntime, cni},
	{"driver", areaGPUs, driver},
	{"injection", areaGPUs, injection},
	{"cdi", areaGPUs, specs},
	{"gpus-out", areaGPUs, outcasts},
	{"buckets", areaStorage, buckets},
	{"csi", areaStorage, drivers},
	{"state", areaAgent, state},
	{"joined", areaAgent, joined},
	{"hub", areaAgent, hub},
	{"bound", areaAgent, bound},
	{"target", areaAgent, target},
	{"agent", areaAgent, agent},
	{"port", areaAgent, port},
}

// patience is how long one look may take: what hangs is a finding.
const patience = 10 * time.Second

// Examine looks at everything, in the order in which it is shown.
func (c Case) Examine(ctx context.Context) []diagnosis.Finding {
	s := c.open(ctx)
	if s.runtime != nil {
		defer func() { _ = s.runtime.Close(context.WithoutCancel(ctx)) }()
	}
	var all []diagnosis.Finding
	for _, ch := range checks {
		looking, cancel := context.WithTimeout(ctx, patience)
		for _, f := range ch.look(looking, s) {
			f.ID, f.Area = ch.id, ch.area
			all = append(all, f)
		}
		cancel()
	}
	return all
}

func (c Case) open(ctx context.Context) *sight {
	s := &sight{Case: c, store: binding.Store{State: c.Config.StateDir}}
	if j, err := s.store.Joined(); err == nil {
		s.joined = &j
	}
	if credential, err := s.store.Credential(); err == nil {
		s.credential = credential
	}
	s.running = binding.Locked(c.Config.StateDir.Lock())
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.runtime, s.runtimeErr = cri.Connect(ctx, c.Config.ContainerRuntimeEndpoint); s.runtimeErr == nil {
		s.status, s.runtimeErr = readStatus(ctx, s.runtime)
	}
	return s
}

// saw is the answer of a check that found nothing.
func saw(what string) []diagnosis.Finding { return []diagnosis.Finding{{Severity: OK, What: what}} }

// found is the answer of a check that found one thing.
func found(severity diagnosis.Severity, what, why string, fix ...string) []diagnosis.Finding {
	return []diagnosis.Finding{{Severity: severity, What: what, Why: why, Fix: fix}}
}
