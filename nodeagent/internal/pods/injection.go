package pods

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// errNoInjection is what people are told who are not at the machine.
var errNoInjection = fmt.Errorf("%w; on the machine, see: ainode-agent doctor", cri.ErrNoInjection)

// wantedHandler is the runtime handler that a sandbox of the pod needs. It is an error if
// there is no way for the pod's cards to get into its containers.
func (w *worker) wantedHandler() (string, error) {
	by := w.m.o.Injection()
	switch {
	case len(w.cards) == 0 || by.CDI:
		return "", nil
	case by.Handler == "":
		return "", errNoInjection
	}
	return by.Handler, nil
}

// inject is how a container gets its cards: the CDI names in the request, or what NVIDIA's
// runtime handler is told. Where that handler is in charge, a container without cards is
// one that it must leave alone, whatever its image says.
func (w *worker) inject(cards []string) (devices []string, visible string, err error) {
	for _, card := range cards {
		device := w.m.o.Cards.CDIDevice(card)
		if device == "" { // without its card it would run and find none
			return nil, "", fmt.Errorf("its %s %s is not there: %s", w.m.o.Cards.Device(card).Kind(), card, w.m.o.Cards.Trouble(card))
		}
		devices = append(devices, device)
	}
	by := w.m.o.Injection()
	w.mu.Lock()
	handler := w.handler
	w.mu.Unlock()
	if by.ByDefault || handler != "" {
		visible = crispec.NoDevices
	}
	switch {
	case len(cards) == 0 || by.CDI:
		return devices, visible, nil
	case by.Handler == "":
		return nil, "", errNoInjection
	case handler == "" && !by.ByDefault:
		return nil, "", errors.New("the pod began while the container runtime gave GPUs by CDI, which it has turned off since: delete the pod to have it placed anew, or turn CDI on again")
	}
	return nil, strings.Join(cards, ","), nil
}
