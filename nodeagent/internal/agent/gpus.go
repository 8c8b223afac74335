package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
	"github.com/ainode/ainode/nodeagent/internal/gpumetrics"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
)

func openCards(cfg config.Run, id machine.Identity, node string) (*gpu.Machine, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the agent's program: %w", err)
	}
	return gpu.Open(gpu.Options{
		// Simulated machines may share a host, and its machine id.
		Simulate: cfg.SimulateGPUs, SimulateMIG: cfg.SimulateMIG, MachineID: id.ID + "/" + node, CDIDir: cfg.CDIDir, AllowNone: true,
		// The stand-in for nvidia-smi is installed beside the agent.
		NvidiaSMI: filepath.Join(filepath.Dir(exe), "nvidia-smi-simulated"),
	})
}

// followCards makes the tracker of the machine's cards; the tenant hears of them.
func (t *tenant) followCards(cards *gpu.Machine) error {
	t.cards, t.cardNews = cards, make(chan struct{}, 1)
	var err error
	t.tracker, err = gpuhealth.New(gpuhealth.Options{
		Cards: cards, Clock: t.clock, Path: t.cfg.StateDir.GPUs(), Boot: t.machine.BootID,
		Faulted: t.cardFaulted, Changed: t.cardsChanged,
	})
	return err
}

// cardFaulted tells the pods that have the card or slice, and, where it is a fault of the
// hardware, the Node.
func (t *tenant) cardFaulted(f gpuhealth.Fault) {
	hardware := f.Class != gpuhealth.Application
	t.mu.Lock()
	manager, recorder := t.pods, t.recorder
	t.mu.Unlock()
	if manager != nil {
		manager.CardFault(f.UUID, f.Message, hardware)
	}
	if recorder != nil && hardware && f.Class != gpuhealth.Recut {
		ref := &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: t.node, UID: types.UID(t.node)} // as a kubelet refers to its own
		recorder.Event(ref, corev1.EventTypeWarning, "GPUFault", f.Message)
	}
}

// cardsChanged makes the Node and the pods with cards look.
func (t *tenant) cardsChanged() {
	if manager := t.manager(); manager != nil {
		manager.CardsChanged()
	}
	select {
	case t.cardNews <- struct{}{}:
	default:
	}
}

// tellNode is who tells of cards on the Node, while there is one.
func (t *tenant) tellNode(recorder record.EventRecorder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recorder = recorder
}

// cardHealth is how the cards are, for the Node's status.
func (t *tenant) cardHealth() *nodestatus.GPUs {
	s := t.tracker.Summary()
	if manager := t.manager(); manager != nil {
		withheld, cards := manager.Withheld()
		for name, n := range withheld {
			s.Usable[name] -= n
		}
		if len(cards) > 0 {
			s.Message += "; nothing more of " + strings.Join(cards, ", ") + " is given to pods while one holds it as it was cut before"
		}
	}
	gpus := &nodestatus.GPUs{
		Total: s.Total, Usable: s.Usable, Status: corev1.ConditionFalse, Reason: s.Reason, Message: s.Message,
		Labels: t.cards.NodeLabels(), Prefixes: gpu.LabelPrefixes,
	}
	if why := t.noInjection(); why != "" && gpus.Reason != "DriverNotUsable" {
		gpus.Usable = map[corev1.ResourceName]int{}
		for name := range s.Usable {
			gpus.Usable[name] = 0
		}
		gpus.Reason, gpus.Message = "RuntimeGivesNone", why
		return gpus
	}
	switch {
	case s.OK:
		gpus.Status = corev1.ConditionTrue
	case s.Unsure:
		gpus.Status = corev1.ConditionUnknown
	}
	return gpus
}

func (t *tenant) cardMetrics() gpumetrics.Options {
	return gpumetrics.Options{
		Cards: t.tracker, Node: t.node, Simulated: t.cards.Simulated() != "",
		Owner: func(uuid string) (types.NamespacedName, string, bool) {
			if manager := t.manager(); manager != nil {
				return manager.Owner(uuid)
			}
			return types.NamespacedName{}, "", false
		},
	}
}
