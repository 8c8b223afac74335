package agent

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// askPatience is how long the runtime may take to tell its settings.
const askPatience = 10 * time.Second

// askInjection asks the runtime how it gives cards to containers: somebody may have
// configured it anew. What it does not tell stays as it was.
func (t *tenant) askInjection(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	settings, err := cri.AskSettings(ctx, t.runtime)
	if err != nil {
		klog.FromContext(ctx).Error(err, "It is not known anew how GPUs get into containers")
		return
	}
	now := settings.Injection()
	if t.cards.Simulated() != "" {
		now.Handler = "" // NVIDIA's program knows real cards alone
	}
	if before := t.injection.Swap(&now); before == nil || *before != now {
		klog.FromContext(ctx).Info("How GPUs get into containers", "cdi", now.CDI, "handler", now.Handler, "byDefault", now.ByDefault)
	}
}

// injects is how the runtime gives cards to containers; not at all, until it was asked:
// one without CDI ignores what it is asked for, and a container would start without its
// card. Until then it may be one that gives all cards to who asks for none.
func (t *tenant) injects() cri.Injection {
	if known := t.injection.Load(); known != nil {
		return *known
	}
	return cri.Injection{ByDefault: true}
}

// noInjection is why no container gets a card; empty if they do, if there is none to give, and
// while the runtime has not been heard.
func (t *tenant) noInjection() string {
	if known := t.injection.Load(); known == nil || known.Injects() || len(t.cards.Found().Cards) == 0 {
		return ""
	}
	fix := "set enable_cdi = true in /etc/containerd/config.toml (containerd 1.7 and newer)"
	if t.cards.Simulated() == "" {
		fix += ", or type: nvidia-ctk runtime configure --runtime=containerd"
	}
	return cri.ErrNoInjection.Error() + "; " + fix + "; then: systemctl restart containerd"
}
