package binding

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
)

// markTime is how long a release waits for the target to take the mark. A target that
// is out of reach holds no release up: the plugin clears up there, or a person.
const markTime = 5 * time.Second

// markReleased says on the Node that every pod of its binding has ended here. It is
// the last thing that the node's identity does, and the proof by which the
// housekeeper of the target clears up if no plugin does. record is what released it: it
// may show a renewal that this machine has not come to, whose identity stands as well.
func (b *Binder) markReleased(ctx context.Context, record *v1alpha1.AINode) {
	// As stored: the token may have been renewed since the agent began.
	c, err := b.o.Store.Credential()
	if err == nil && c != nil {
		ctx, cancel := context.WithTimeout(ctx, markTime)
		defer cancel()
		epoch := c.Epoch
		if record.Spec.ClusterConfigName == "" {
			epoch = max(epoch, record.Spec.BindEpoch)
		}
		err = mark(ctx, *c, epoch)
	}
	if err != nil {
		klog.FromContext(ctx).Info("The target was not told of the release; who unbinds clears up there", "node", b.o.Joined.Node, "error", err.Error())
	}
}

func mark(ctx context.Context, c Credential, epoch int64) error {
	client, err := kubernetes.NewForConfig(nodeConfig(c.Credential, bearer(c.Token.Value)))
	if err != nil {
		return fmt.Errorf("make a client of the target: %w", err)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, contract.ReleasedEpochAnnotation, strconv.FormatInt(epoch, 10))
	if _, err := client.CoreV1().Nodes().Patch(ctx, c.Node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("mark node %q as released: %w", c.Node, err)
	}
	return nil
}
