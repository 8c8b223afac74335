package binding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// KeptEnd is the end of the binding as this machine keeps it, and of which version of the
// record it is.
type KeptEnd struct {
	term.End
	UID        types.UID `json:"uid,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	// Restored is the end that a hub had again which was restored from a backup, where
	// nobody has set another since: it was moved after that backup.
	Restored *term.End `json:"restored,omitempty"`
}

// newerThan reports whether what is kept is of a later version than the record, which then
// is that of a hub that was restored.
func (k *KeptEnd) newerThan(record *v1alpha1.AINode) bool {
	return k.UID == record.UID && record.Generation < k.Generation
}

// see takes over what a record says of the end, unless the record is older than what is
// kept. changed reports whether that is another one to be stored.
func (k *KeptEnd) see(record *v1alpha1.AINode) (changed bool) {
	end := endOf(record.Spec)
	older := k.newerThan(record)
	switch {
	case end.Equal(k.End) && !older && k.Restored == nil && (k.UID == record.UID || end.IsZero()):
		return false
	case older && !end.Equal(k.End) && k.Restored == nil:
		k.Restored = &end
		return true
	case k.Restored != nil && end.Equal(*k.Restored) && !end.Equal(k.End):
		return false
	}
	*k = KeptEnd{End: end, UID: record.UID, Generation: record.Generation}
	return true
}

// End reads when the binding ends; the zero KeptEnd if it never had an end.
func (s Store) End() (KeptEnd, error) {
	var end KeptEnd
	err := readJSON(s.State.End(), &end)
	if errors.Is(err, fs.ErrNotExist) {
		return end, nil
	}
	return end, err
}

// SaveEnd stores when the binding ends: it ends in time though the hub is silent.
func (s Store) SaveEnd(end KeptEnd) error { return writeJSON(s.State.End(), end) }

// keepEnd takes over the end of the binding that this machine has; a record of an earlier
// epoch is one of a hub that was restored, and its end may have been moved since.
func (b *Binder) keepEnd(ctx context.Context, record *v1alpha1.AINode) {
	if record == nil || b.credential == nil || record.Spec.FirstEpoch() > b.credential.Epoch {
		return
	}
	// A record of before is only remembered: who has it learn the binding again may set
	// another end with that, by the same edit.
	outdated := record.Spec.BindEpoch < b.credential.Epoch
	if outdated && !b.kept.newerThan(record) || !outdated && record.Spec.ClusterConfigName == "" {
		return
	}
	if !b.kept.see(record) {
		return
	}
	if err := b.o.Store.SaveEnd(b.kept); err != nil {
		// What runs goes by the new end all the same; only a restart without a hub
		// would not.
		klog.FromContext(ctx).Error(err, "The binding's end is not stored")
	}
	b.end.Set(b.kept.End)
}

// itsEnd is the end that this machine's binding has: before it has a credential, that of
// the record.
func (b *Binder) itsEnd(record *v1alpha1.AINode) term.End {
	if b.credential == nil {
		return endOf(record.Spec)
	}
	return b.kept.End
}

// served is the binding as this machine keeps it; nil without one.
func served(c *Credential, end term.End) *v1alpha1.ServedBinding {
	if c == nil {
		return nil
	}
	b := &v1alpha1.ServedBinding{SinceEpoch: c.since(), PodCIDR: c.PodCIDR, Address: c.Address}
	if !end.IsZero() {
		until := metav1.NewTime(end.Until).Rfc3339Copy()
		b.Until, b.DrainGrace = &until, &metav1.Duration{Duration: end.DrainGrace}
	}
	return b
}

// when says in words when a binding ends.
func when(end term.End) string {
	if end.IsZero() {
		return "when it is unbound"
	}
	return "at " + end.Until.UTC().Format(time.RFC3339)
}

// untilEnd is after how long the binding is over.
func (b *Binder) untilEnd(record *v1alpha1.AINode) time.Duration {
	if record != nil {
		if end := b.itsEnd(record); !end.IsZero() && end.Until.After(b.o.Clock.Now()) {
			return end.Until.Sub(b.o.Clock.Now())
		}
	}
	return time.Hour
}

// expired reports whether the binding has come to its end, by a clock that the hub's
// agrees with. By then its pods have ended; for those that have not, the release is not
// held up for ever.
func (b *Binder) expired(s Situation, record *v1alpha1.AINode) bool {
	if record == nil || s.Claim != Ours {
		return false
	}
	if record.Spec.Until == nil {
		return false // a record that was restored without one: nobody may give back by it
	}
	hub, heard := b.hubClock.now()
	if !heard {
		return false // it can't be told of it now
	}
	end, now := b.itsEnd(record), term.Agreed(b.o.Clock.Now(), hub)
	return end.Stage(now) == term.Over && (!s.Serving || b.end.Finished() || !now.Before(end.Until.Add(lastPods)))
}

// giveBack lets go of the binding in this node's own record, of the version that was
// seen: a person who gives it a later end at this moment has it so.
func (b *Binder) giveBack(ctx context.Context, record *v1alpha1.AINode) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	klog.FromContext(ctx).Info("The binding's end has come, it is given back", "node", record.Name, "config", record.Spec.ClusterConfigName, "until", b.itsEnd(record).Until)
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": record.ResourceVersion},
		"spec": map[string]any{
			"clusterConfigName": nil, "sinceEpoch": nil, "draining": nil, "nodeLabels": nil, "podCIDR": nil, "address": nil, "until": nil, "drainGrace": nil,
		},
	})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	answer, err := b.records.Patch(ctx, record.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("give back the binding of %q, whose end has come: %w (if it is forbidden, renew the agent's rights: kubectl ainode add %s)", record.Name, err, record.Name)
	}
	b.sawRecord(answer)
	return nil
}
