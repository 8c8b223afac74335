package nodestatus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// RuntimeStatus is what Probe needs of the container runtime.
type RuntimeStatus interface {
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
}

// The kubelet's hard eviction thresholds.
const (
	leastMemory = 100 << 20 // bytes available
	leastDisk   = 10        // per cent available
	leastPIDs   = 5         // per cent of pid_max free
)

// patience is how long the runtime may take to answer.
const patience = 10 * time.Second

// Probe looks at the machine below root ("/" outside tests), the file system of
// stateDir and the runtime; ownAddresses says that pods have addresses which the
// runtime gives them.
func Probe(ctx context.Context, root, stateDir string, runtime RuntimeStatus, ownAddresses bool) Health {
	// A runtime that hangs must not keep the news of it.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var h Health
	answer, err := runtime.Status(ctx, false)
	switch {
	case err != nil:
		h.NotReady = "container runtime does not answer: " + err.Error()
	default:
		for _, c := range answer.GetStatus().GetConditions() {
			switch {
			case c.Status:
			case c.Type == runtimeapi.RuntimeReady:
				h.NotReady = fmt.Sprintf("container runtime is not ready: %s %s", c.Reason, c.Message)
			case c.Type == runtimeapi.NetworkReady && ownAddresses && h.NotReady == "":
				// In the kubelet's words (pkg/kubelet/kubelet.go, updateRuntimeUp).
				h.NotReady = fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message)
			}
		}
	}
	if free, err := machine.Meminfo(root, "MemAvailable"); err == nil && free < leastMemory {
		h.Memory = fmt.Sprintf("%d MiB of memory available, less than %d MiB", free>>20, leastMemory>>20)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(stateDir, &fs); err == nil && fs.Blocks > 0 && fs.Bavail*100/fs.Blocks < leastDisk {
		h.Disk = fmt.Sprintf("less than %d %% of the file system of %s available", leastDisk, stateDir)
	}
	if used, most, ok := pids(root); ok && (most-used)*100/most < leastPIDs {
		h.PID = fmt.Sprintf("%d of %d process ids in use", used, most)
	}
	return h
}

// pids reads the number of threads (/proc/loadavg, fourth field) and its limit.
func pids(root string) (used, most int, ok bool) {
	load, err1 := os.ReadFile(filepath.Join(root, "proc/loadavg"))
	limit, err2 := os.ReadFile(filepath.Join(root, "proc/sys/kernel/pid_max"))
	fields := strings.Fields(string(load))
	if err1 != nil || err2 != nil || len(fields) < 4 {
		return 0, 0, false
	}
	_, total, _ := strings.Cut(fields[3], "/")
	used, err1 = strconv.Atoi(total)
	most, err2 = strconv.Atoi(strings.TrimSpace(string(limit)))
	return used, most, err1 == nil && err2 == nil && most > 0
}
