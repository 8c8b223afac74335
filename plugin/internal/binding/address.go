package binding

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// chooseAddress settles which of the machine's addresses the target reaches it by. A
// binding that is gone on with keeps its own: the serving certificate and the pods have it.
func (p *Plan) chooseAddress(record *v1alpha1.AINode) error {
	asked := p.Address
	if err := p.checkAddress(record); err != nil {
		return err
	}
	if record.Spec.ClusterConfigName == p.Config || nodes.Outdated(record) {
		p.Address = addressOf(record)
		p.address = cmp.Or(p.Address, record.Status.Address)
		if asked != "" && asked != p.address {
			return remedy.New("Unbind it to change that", "kubectl ainode unbind "+p.Node, "AI node %q is bound already, and is reached at %s", p.Node, p.address)
		}
		return nil
	}
	if p.address = cmp.Or(asked, record.Status.Address); asked == "" {
		return nil
	}
	if len(record.Status.Addresses) == 0 && asked == record.Status.Address {
		p.Address = "" // an older agent serves at no other, and does not know the field
		return nil
	}
	return nil
}

// checkAddress fails if the machine does not say that it has the address that is asked for.
func (p *Plan) checkAddress(record *v1alpha1.AINode) error {
	s := record.Status
	if p.Address == "" || p.Address == s.Address || slices.Contains(s.Addresses, p.Address) {
		return nil
	}
	return remedy.New("Choose one of those, for example", "kubectl ainode bind "+p.Node+" --to "+p.Config+" --address "+cmp.Or(s.Address, "ADDRESS"),
		"the machine of AI node %q does not say that it has the address %s; it has %s", p.Node, p.Address,
		cmp.Or(strings.Join(s.Addresses, ", "), s.Address, "told none yet"))
}

// addressOf is the address that was chosen for a binding; empty if its agent chooses.
// After a restore of the hub the machine knows, and the record does not.
func addressOf(record *v1alpha1.AINode) string {
	if nodes.Outdated(record) && record.Status.Binding != nil {
		return record.Status.Binding.Address
	}
	return record.Spec.Address
}

// keptAddress fails if the record has another address than was asked for: an older chart's
// have none, or another bind was faster. Who asked for none takes what that one has chosen.
func (p *Plan) keptAddress(record *v1alpha1.AINode, claimed bool) error {
	switch has := record.Spec.Address; {
	case has == p.Address:
		return nil
	case p.Address == "":
		p.Address, p.address = has, has
		return nil
	case claimed:
		return outdatedChart("the hub keeps no address of the binding of AI node %q: its records are of an older version", record.Name)
	default:
		return remedy.New("Unbind it to change that", "kubectl ainode unbind "+p.Node, "AI node %q was bound meanwhile, and is reached at %s",
			p.Node, cmp.Or(has, record.Status.Address))
	}
}
