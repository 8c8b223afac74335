package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PIDs are the number of threads (/proc/loadavg, fourth field) and its limit: the
// smaller of pid_max and threads-max, as the kubelet takes it.
func PIDs(root string) (used, most int64, err error) {
	load, err := os.ReadFile(filepath.Join(root, "proc/loadavg"))
	if err != nil {
		return 0, 0, fmt.Errorf("count threads: %w", err)
	}
	fields := strings.Fields(string(load))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("count threads: %q is not what /proc/loadavg looks like", load)
	}
	_, total, _ := strings.Cut(fields[3], "/")
	if used, err = strconv.ParseInt(total, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("count threads: %w", err)
	}
	for _, limit := range []string{"pid_max", "threads-max"} {
		n, err := strconv.ParseInt(line(root, "proc/sys/kernel/"+limit), 10, 64)
		if err == nil && (most == 0 || n < most) {
			most = n
		}
	}
	if most == 0 {
		return 0, 0, fmt.Errorf("read the most threads that there may be: %s has neither limit", filepath.Join(root, "proc/sys/kernel"))
	}
	return used, most, nil
}
