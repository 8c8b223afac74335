// Package eviction ends pods before the machine runs out of memory, disk or process
// ids, in the kubelet's order and with its words (pkg/kubelet/eviction).
package eviction

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal is what may run out, as the kubelet names it.
type Signal string

// The signals, in the order in which they are dealt with.
const (
	MemoryAvailable   Signal = "memory.available"
	NodeFsAvailable   Signal = "nodefs.available"
	NodeFsInodesFree  Signal = "nodefs.inodesFree"
	ImageFsAvailable  Signal = "imagefs.available"
	ImageFsInodesFree Signal = "imagefs.inodesFree"
	PIDAvailable      Signal = "pid.available"
)

var signals = []Signal{MemoryAvailable, NodeFsAvailable, NodeFsInodesFree, ImageFsAvailable, ImageFsInodesFree, PIDAvailable}

// The kubelet's own names of what pods can't ask for.
const (
	inodes corev1.ResourceName = "inodes"
	pids   corev1.ResourceName = "pids"
)

// resourceOf is what is reclaimed when the signal's threshold is met.
func resourceOf(s Signal) corev1.ResourceName {
	switch s {
	case MemoryAvailable:
		return corev1.ResourceMemory
	case NodeFsAvailable, ImageFsAvailable:
		return corev1.ResourceEphemeralStorage
	case NodeFsInodesFree, ImageFsInodesFree:
		return inodes
	default:
		return pids
	}
}

// ofImages reports whether the signal is about the disk with images.
func ofImages(s Signal) bool { return s == ImageFsAvailable || s == ImageFsInodesFree }

// conditionOf is what the node says of itself then.
func conditionOf(s Signal) corev1.NodeConditionType {
	switch s {
	case MemoryAvailable:
		return corev1.NodeMemoryPressure
	case PIDAvailable:
		return corev1.NodePIDPressure
	default:
		return corev1.NodeDiskPressure
	}
}

// Reading is how much there is, and how much of it is free: bytes, inodes or
// process ids.
type Reading struct{ Available, Capacity int64 }

// Readings are what could be read, by signal.
type Readings map[Signal]Reading

// threshold is how much of a signal must stay free.
type threshold struct {
	amount  int64   // where it is no share
	percent float64 // of the capacity; 0: an amount
}

func (t threshold) of(capacity int64) int64 {
	if t.percent > 0 {
		return int64(float64(capacity) * t.percent / 100)
	}
	return t.amount
}

// Thresholds are hard: what goes below them is dealt with at once.
type Thresholds map[Signal]threshold

// Default is the kubelet's evictionHard. It has none for process ids, of which a
// machine of ours keeps a twentieth.
const Default = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%,pid.available<5%"

// Parse reads thresholds as the kubelet's --eviction-hard has them:
// SIGNAL<AMOUNT or SIGNAL<N%, with commas between; the empty text is none.
func Parse(text string) (Thresholds, error) {
	all := Thresholds{}
	if text == "" {
		return all, nil
	}
	for statement := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(statement, "<")
		signal := Signal(strings.TrimSpace(name))
		if _, twice := all[signal]; !ok || twice || !slices.Contains(signals, signal) {
			return nil, fmt.Errorf("eviction threshold %q: want SIGNAL<AMOUNT, each SIGNAL once, of %v", statement, signals)
		}
		if share, isShare := strings.CutSuffix(value, "%"); isShare {
			percent, err := strconv.ParseFloat(share, 64)
			if err != nil || percent < 0 || percent >= 100 {
				return nil, fmt.Errorf("eviction threshold %q: %q is no share below 100%%", statement, value)
			}
			if percent > 0 { // 0% is the kubelet's way to have none
				all[signal] = threshold{percent: percent}
			}
			continue
		}
		amount, err := resource.ParseQuantity(value)
		if err != nil || amount.Sign() < 0 {
			return nil, fmt.Errorf("eviction threshold %q: %q is not an amount", statement, value)
		}
		all[signal] = threshold{amount: amount.Value()}
	}
	return all, nil
}

// Kept is how much of a signal must stay free where there is so much of it, in its own unit
// (bytes, inodes, process ids); 0 where nothing must.
func (t Thresholds) Kept(s Signal, capacity int64) int64 { return t[s].of(capacity) }

// Met are the signals whose thresholds are met, in order. What could not be read
// is not met.
func (t Thresholds) Met(r Readings) []Signal {
	var found []Signal
	for _, s := range signals {
		limit, limited := t[s]
		now, known := r[s]
		if limited && known && now.Available < limit.of(now.Capacity) {
			found = append(found, s)
		}
	}
	return found
}
