package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// None is no limit.
const None = -1

// Limits of a cgroup and all below it.
type Limits struct {
	// CPUShares are relative to the cgroups beside it, 2 to 262144 (1024 for a
	// processor); version 2 has weights instead.
	CPUShares int64
	// CPUQuota is µs of processor time in each CPUPeriod (µs), or None.
	CPUQuota, CPUPeriod int64
	// Memory in bytes, or None.
	Memory int64
}

// Limit limits the cgroup at path below mount. An empty path is none. A limit below
// what is in use, or below that of a cgroup inside, is the kernel's error.
func Limit(mount, path string, l Limits) error {
	if path = filepath.Clean("/" + path); path == "/" {
		return nil
	}
	for _, w := range writes(mount, path, l) {
		if err := os.WriteFile(w.file, []byte(w.value), 0); err != nil {
			return fmt.Errorf("limit cgroup %q: %w", path, err)
		}
	}
	return nil
}

type write struct{ file, value string }

func writes(mount, path string, l Limits) []write {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); errors.Is(err, fs.ErrNotExist) {
		cpu, memory := filepath.Join(mount, "cpu", path), filepath.Join(mount, "memory", path)
		return []write{
			{filepath.Join(cpu, "cpu.shares"), number(l.CPUShares)},
			{filepath.Join(cpu, "cpu.cfs_period_us"), number(l.CPUPeriod)},
			{filepath.Join(cpu, "cpu.cfs_quota_us"), number(l.CPUQuota)},
			{filepath.Join(memory, "memory.limit_in_bytes"), number(l.Memory)},
		}
	}
	unlimited := func(n int64) string {
		if n == None {
			return "max"
		}
		return number(n)
	}
	directory := filepath.Join(mount, path)
	return []write{
		{filepath.Join(directory, "cpu.weight"), number(weight(l.CPUShares))},
		{filepath.Join(directory, "cpu.max"), unlimited(l.CPUQuota) + " " + number(l.CPUPeriod)},
		{filepath.Join(directory, "memory.max"), unlimited(l.Memory)},
	}
}

// weight spreads the shares of version 1 over the weights of version 2, 1 to 10000
// (KEP-2254).
func weight(shares int64) int64 { return 1 + (shares-2)*9999/262142 }
