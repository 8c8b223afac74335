package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Hardware is what stays behind when a disk is copied to another machine. Parts of it
// may be unknown, and may be replaced one by one.
type Hardware struct {
	// ProductUUID is the DMI product UUID, empty where it can't be read.
	ProductUUID string `json:"productUUID,omitempty"`
	// GPUs are the UUIDs of the cards.
	GPUs []string `json:"gpus,omitempty"`
}

// Other reports whether now is another machine for certain: it has nothing in common
// with h, and one thing of the same kind that differs.
func (h Hardware) Other(now Hardware) bool {
	if slices.ContainsFunc(now.GPUs, func(uuid string) bool { return slices.Contains(h.GPUs, uuid) }) {
		return false
	}
	if h.ProductUUID != "" && now.ProductUUID != "" {
		return h.ProductUUID != now.ProductUUID
	}
	return len(h.GPUs) > 0 && len(now.GPUs) > 0
}

// With is now, and of h what now does not know: a driver that is silent takes no card
// away.
func (h Hardware) With(now Hardware) Hardware {
	if now.ProductUUID == "" {
		now.ProductUUID = h.ProductUUID
	}
	if len(now.GPUs) == 0 {
		now.GPUs = h.GPUs
	}
	return now
}

// String is for people.
func (h Hardware) String() string {
	return fmt.Sprintf("%s (GPUs: %s)", cmp.Or(h.ProductUUID, "unknown"), cmp.Or(strings.Join(h.GPUs, ", "), "unknown"))
}
