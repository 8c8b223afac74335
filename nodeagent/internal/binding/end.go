package binding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// lastPods is how long after its end a binding waits for pods that do not end, before
// it is released all the same: the release kills them.
const lastPods = 30 * time.Second

// endOf is the end that a record gives its binding.
func endOf(spec v1alpha1.AINodeSpec) term.End {
	var end term.End
	if spec.Until != nil && spec.ClusterConfigName != "" {
		end.Until = spec.Until.Time
		if spec.DrainGrace != nil {
			end.DrainGrace = spec.DrainGrace.Duration
		}
	}
	return end
}

// End reads when the binding ends; the zero End if it has no end.
func (s Store) End() (term.End, error) {
	var end term.End
	err := readJSON(s.State.End(), &end)
	if errors.Is(err, fs.ErrNotExist) {
		return end, nil
	}
	return end, err
}

// SaveEnd stores when the binding ends: it ends in time though the hub is silent.
func (s Store) SaveEnd(end term.End) error {
	if !end.IsZero() {
		return writeJSON(s.State.End(), end)
	}
	if err := os.Remove(s.State.End()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the binding's end: %w", err)
	}
	return nil
}

// keepEnd takes over the end of the binding that this machine has; a record of an earlier
// epoch is one of a hub that was restored, and its end may have been moved since.
func (b *Binder) keepEnd(ctx context.Context, record *v1alpha1.AINode) {
	if record == nil || b.credential == nil || record.Spec.ClusterConfigName == "" ||
		record.Spec.BindEpoch < b.credential.Epoch || record.Spec.FirstEpoch() > b.credential.Epoch {
		return
	}
	end := endOf(record.Spec)
	if have, _ := b.end.Get(); have.Equal(end) {
		return
	}
	if err := b.o.Store.SaveEnd(end); err != nil {
		// What runs goes by the new end all the same; only a restart without a hub
		// would not.
		klog.FromContext(ctx).Error(err, "The binding's end is not stored")
	}
	b.end.Set(end)
}

// untilEnd is after how long the record's binding is over.
func (b *Binder) untilEnd(record *v1alpha1.AINode) time.Duration {
	if record != nil {
		if end := endOf(record.Spec); !end.IsZero() && end.Until.After(b.o.Clock.Now()) {
			return end.Until.Sub(b.o.Clock.Now())
		}
	}
	return time.Hour
}

// expired reports whether the record's binding has come to its end. By then its pods
// have ended; for those that have not, the release is not held up for ever.
func (b *Binder) expired(ctx context.Context, s Situation, record *v1alpha1.AINode) bool {
	if record == nil || s.Claim != Ours {
		return false
	}
	end, now := endOf(record.Spec), b.o.Clock.Now()
	if end.Stage(now) != term.Over {
		return false
	}
	if s.Serving && !b.end.Finished() && now.Before(end.Until.Add(lastPods)) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	hub, err := b.hubDate(ctx)
	if err != nil {
		return false // it can't be told of it now
	}
	if !term.Agree(now, hub) {
		b.end.SetDoubt(term.Disagree(now, hub))
		return false
	}
	b.end.SetDoubt("")
	return true
}

// giveBack lets go of the binding in this node's own record, of the version that was
// seen: a person who gives it a later end at this moment has it so.
func (b *Binder) giveBack(ctx context.Context, record *v1alpha1.AINode) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	klog.FromContext(ctx).Info("The binding's end has come, it is given back", "node", record.Name, "config", record.Spec.ClusterConfigName, "until", record.Spec.Until)
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": record.ResourceVersion},
		"spec": map[string]any{
			"clusterConfigName": nil, "sinceEpoch": nil, "draining": nil, "nodeLabels": nil, "podCIDR": nil, "until": nil, "drainGrace": nil,
		},
	})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	var answer v1alpha1.AINode
	if err := b.records.Patch(types.MergePatchType).Resource("ainodes").Name(record.Name).Body(patch).Do(ctx).Into(&answer); err != nil {
		return fmt.Errorf("give back the binding of %q, whose end has come: %w (if it is forbidden, renew the agent's rights: kubectl ainode add %s)", record.Name, err, record.Name)
	}
	b.sawRecord(&answer)
	return nil
}

// hubDate reads the Date header of an answer of the hub, whatever else it answers. It
// is exact to a second.
func (b *Binder) hubDate(ctx context.Context) (time.Time, error) {
	client, err := rest.HTTPClientFor(hubConfig(b.o.Joined, nil))
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the hub for the time: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.o.Joined.Server+"/version", nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the hub for the time: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the hub for the time: %w", err)
	}
	_ = answer.Body.Close()
	return http.ParseTime(answer.Header.Get("Date"))
}
