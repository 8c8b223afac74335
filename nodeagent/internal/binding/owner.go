package binding

import (
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
)

// owner names the machine, if it is not the one with key own, that the record's binding
// was made with and that has not let go of it. It may be cut off from the hub alone and run
// its pods: whoever joins under its name waits until the binding has been ended, if need be
// by force. The Lease can't tell, since it knows only who was heard last. credential is the
// epoch of what this machine has stored: with one of this binding it is the owner, whatever
// key a hub has that was restored. With one of a binding that is over it is not, where
// another machine has been given the name since: that one speaks in the record.
func owner(record *v1alpha1.AINode, own handover.PublicKey, credential int64) string {
	if record == nil {
		return ""
	}
	mine := credential > 0 && credential >= record.Spec.FirstEpoch()
	if record.Released() {
		mine = credential == 0 || credential > record.Spec.BindEpoch
	}
	if mine {
		return ""
	}
	key, err := handover.ParsePublicKey(record.Status.PublicKey)
	if err != nil || key == own {
		return "" // nobody, where the record is one that no machine has joined yet
	}
	return "the machine with key " + key.Fingerprint()
}
