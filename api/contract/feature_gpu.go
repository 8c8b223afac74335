package contract

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

const wholeCards = "ask for whole cards, the same number in limits and requests"

// gpu is row gpu of SUPPORT.md: whole cards, the same in limits and requests.
//
//	gpu: spec.containers[0].resources.limits[nvidia.com/gpu]: 500m is not a whole number of cards
func gpu(r *review) {
	total := resource.Quantity{}
	asked := false
	r.pod.containers(func(c *Container) {
		if c.Resources == nil {
			return
		}
		names := slices.Sorted(maps.Keys(c.Resources.Limits))
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		for _, name := range names {
			if amount, ok := r.gpuPair(c, name); ok && amount.Sign() > 0 {
				asked = true
				total.Add(amount)
			}
		}
	})
	r.gpuLabel(asked, total)
}

// gpuPair judges one resource of one container and copies a missing side from the
// other.
func (r *review) gpuPair(c *Container, name string) (resource.Quantity, bool) {
	limit, hasLimit := c.Resources.Limits[name]
	request, hasRequest := c.Resources.Requests[name]
	var amounts []resource.Quantity
	sound := true
	for _, side := range []struct {
		has          bool
		name, amount string
	}{{hasLimit, "limits", limit}, {hasRequest, "requests", request}} {
		if !side.has {
			continue
		}
		amount, fault := cards(side.amount)
		copied := side.name == "requests" && hasLimit && limit == request // by the API server: told once
		if fault != "" && !copied {
			sound = false
			r.find(Finding{
				Field:  fmt.Sprintf("%s.resources.%s[%s]", c.field, side.name, name),
				Action: Deny, Detail: fault, Remedy: wholeCards, Old: raw(side.amount),
			})
		}
		amounts = append(amounts, amount)
	}
	switch {
	case !sound:
		return resource.Quantity{}, false
	case len(amounts) == 2 && amounts[0].Cmp(amounts[1]) != 0:
		r.find(Finding{
			Field: fmt.Sprintf("%s.resources.requests[%s]", c.field, name), Action: Deny,
			Detail: fmt.Sprintf("%s request (%s) differs from limit (%s)", name, request, limit),
			Remedy: wholeCards, Old: raw(request),
		})
		return resource.Quantity{}, false
	case !hasLimit:
		r.copyAmount(c, "limits", name, request, c.Resources.Limits != nil)
	case !hasRequest && r.Moment != OnTemplate: // the API server does it on the pods of a template
		r.copyAmount(c, "requests", name, limit, c.Resources.Requests != nil)
	}
	return amounts[0], true
}

func (r *review) copyAmount(c *Container, side, name, amount string, present bool) {
	list := c.path + "/resources/" + side
	add := set(list+"/"+escape(name), amount)
	if !present {
		add = set(list, map[string]string{name: amount})
	}
	from := map[string]string{"limits": "request", "requests": "limit"}[side]
	r.find(Finding{
		Field: fmt.Sprintf("%s.resources.%s[%s]", c.field, side, name), Action: Inject,
		Detail: fmt.Sprintf("%s copied from the %s", amount, from),
	}, add)
	// A second resource of the same container must not replace the list again.
	fill := func(a Amounts) Amounts {
		if a == nil {
			return Amounts{}
		}
		return a
	}
	if side == "limits" {
		c.Resources.Limits = fill(c.Resources.Limits)
	} else {
		c.Resources.Requests = fill(c.Resources.Requests)
	}
}

// gpuLabel puts the cards that the label asks for into the pod's first container,
// or the one that kubectl calls the default.
func (r *review) gpuLabel(asked bool, total resource.Quantity) {
	value, ok := r.pod.Metadata.Labels[GPUsLabel]
	if !ok {
		return
	}
	field := "metadata.labels[" + GPUsLabel + "]"
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != value {
		r.find(Finding{
			Field: field, Action: Deny, Detail: fmt.Sprintf("%q is not a positive whole number", value),
			Remedy: "write the number of cards, for example \"1\", or remove the label", Old: raw(value),
		})
		return
	}
	if asked {
		if total.CmpInt64(int64(n)) != 0 {
			r.find(Finding{
				Field: field, Action: Warn,
				Detail: fmt.Sprintf("says %s, the containers ask for %s: the containers count", value, total.String()),
			})
		}
		return
	}
	var c *Container
	for _, candidate := range r.pod.Spec.Containers {
		if candidate != nil && (c == nil || candidate.Name == r.pod.Metadata.Annotations[defaultContainerAnnotation]) {
			c = candidate
		}
	}
	if c == nil {
		return
	}
	one := map[string]string{string(GPUResource): value}
	var edits []edit
	if c.Resources == nil {
		edits = append(edits, set(c.path+"/resources", map[string]any{"limits": one, "requests": one}))
	} else {
		for _, side := range []struct {
			name    string
			amounts Amounts
		}{{"limits", c.Resources.Limits}, {"requests", c.Resources.Requests}} {
			if side.amounts == nil {
				edits = append(edits, set(c.path+"/resources/"+side.name, one))
			} else {
				edits = append(edits, set(c.path+"/resources/"+side.name+"/"+escape(string(GPUResource)), value))
			}
		}
	}
	r.find(Finding{
		Field: c.field + ".resources.limits[" + string(GPUResource) + "]", Action: Inject,
		Detail: fmt.Sprintf("%s GPUs from label %s", value, GPUsLabel),
	}, edits...)
}

// Quantity reads an amount that may hold anything. Kubernetes' parser works out
// every digit: an exponent of nine digits would keep it busy for minutes.
func Quantity(amount string) (resource.Quantity, error) {
	const longest, exponentAtMost = 40, 3 // digits
	_, exponent, _ := strings.Cut(strings.ToLower(amount), "e")
	if len(amount) > longest || len(strings.TrimLeft(exponent, "+-0")) > exponentAtMost {
		return resource.Quantity{}, resource.ErrFormatWrong
	}
	return resource.ParseQuantity(amount)
}

// cardsAtMost is more than any machine has. Sums of amounts beyond it overflow in the
// scheduler, which then places a pod that every node refuses, again and again.
const cardsAtMost = 1 << 20

// cards reads an amount of GPUs; fault says what is wrong with it.
func cards(amount string) (q resource.Quantity, fault string) {
	q, err := Quantity(amount)
	if err != nil {
		return q, fmt.Sprintf("%q is not a number", cut(amount, 40))
	}
	if q.Sign() < 0 {
		return q, amount + " is negative"
	}
	if whole := q.DeepCopy(); !whole.RoundUp(0) {
		return q, amount + " is not a whole number of cards"
	}
	if q.CmpInt64(cardsAtMost) > 0 {
		return q, amount + " is more than any machine has"
	}
	return q, ""
}
