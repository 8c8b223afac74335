package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Figures are what the processes of a cgroup, and of those below it, use.
type Figures struct {
	// CPU is the time that was spent since the cgroup was made.
	CPU time.Duration
	// Memory in bytes; WorkingSet is without the page cache that is not in use, RSS
	// without all page cache.
	Memory, WorkingSet, RSS uint64
	PageFaults, MajorFaults uint64
}

// layout is where a version of cgroups has its figures: the hierarchy's folder below
// the mount, the files, and rows in them.
type layout struct {
	cpu, memory, stat       string
	cpuUnit                 time.Duration
	cpuRow                  string // "": the file is the number
	inactive, rss           string
	pageFaults, majorFaults string
	cpuDir, memoryDir       string
}

var (
	version1 = layout{
		cpuDir: "cpuacct", cpu: "cpuacct.usage", cpuUnit: time.Nanosecond,
		memoryDir: "memory", memory: "memory.usage_in_bytes", stat: "memory.stat",
		inactive: "total_inactive_file", rss: "total_rss", pageFaults: "total_pgfault", majorFaults: "total_pgmajfault",
	}
	version2 = layout{
		cpu: "cpu.stat", cpuRow: "usage_usec", cpuUnit: time.Microsecond, memory: "memory.current", stat: "memory.stat",
		inactive: "inactive_file", rss: "anon", pageFaults: "pgfault", majorFaults: "pgmajfault",
	}
)

// Read reads the figures of the cgroup at path below mount, of either version.
func Read(mount, path string) (Figures, error) {
	l := version1
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		l = version2
	}
	var f Figures
	cpu, err1 := number(filepath.Join(mount, l.cpuDir, path, l.cpu), l.cpuRow)
	memory, err2 := number(filepath.Join(mount, l.memoryDir, path, l.memory), "")
	stat := filepath.Join(mount, l.memoryDir, path, l.stat)
	inactive, err3 := number(stat, l.inactive)
	rss, err4 := number(stat, l.rss)
	faults, err5 := number(stat, l.pageFaults)
	major, err6 := number(stat, l.majorFaults)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return Figures{}, fmt.Errorf("read what is used in cgroup %q: %w", path, err)
	}
	f.CPU = time.Duration(cpu) * l.cpuUnit // overflows after 292 years
	f.Memory, f.WorkingSet, f.RSS = memory, memory-min(inactive, memory), rss
	f.PageFaults, f.MajorFaults = faults, major
	return f, nil
}

// number reads a file's row of that name, or the file where it is one number.
func number(file, row string) (uint64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if row == "" {
		return strconv.ParseUint(string(bytes.TrimSpace(raw)), 10, 64)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), row+" "); ok {
			return strconv.ParseUint(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no row %q", file, row)
}
