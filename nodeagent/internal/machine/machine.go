// Package machine reads what identifies the hardware and the system an agent runs
// on, and how much of it there is.
package machine

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Identity is the hardware, its boot and the system on it.
type Identity struct {
	// ID is /etc/machine-id.
	ID string
	// ProductUUID is the DMI product UUID, empty where it can't be read.
	ProductUUID string
	// BootID changes with every boot, so that two copies of one disk that run at
	// the same time are told apart.
	BootID string
	// Kernel is the release uname gives, OSImage os-release's PRETTY_NAME.
	Kernel, OSImage string
	// Arch and OS as Go and Kubernetes call them.
	Arch, OS string
	Hostname string
}

// Read reads the identity below root ("/" outside tests). Only a missing boot id
// is an error: the rest differs between systems.
func Read(root string) (Identity, error) {
	boot := line(root, "proc/sys/kernel/random/boot_id")
	if boot == "" {
		return Identity{}, fmt.Errorf("read the boot id: %s is empty or missing", filepath.Join(root, "proc/sys/kernel/random/boot_id"))
	}
	id := Identity{
		ID:          line(root, "etc/machine-id"),
		ProductUUID: line(root, "sys/class/dmi/id/product_uuid"),
		BootID:      boot,
		OSImage:     osImage(root),
		Arch:        runtime.GOARCH,
		OS:          runtime.GOOS,
	}
	if id.ID == "" {
		id.ID = line(root, "var/lib/dbus/machine-id")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		id.Kernel = unix.ByteSliceToString(u.Release[:])
		id.Hostname = unix.ByteSliceToString(u.Nodename[:])
	}
	return id, nil
}

// Holder is the name under which this machine, in this boot, holds its Lease on
// the hub. key tells apart two agents on one machine.
func (i Identity) Holder(key string) string {
	hardware := i.ProductUUID
	if hardware == "" {
		hardware = i.ID
	}
	return fmt.Sprintf("%s_%s_%s", hardware, short(i.BootID), short(key))
}

func short(s string) string {
	s = strings.NewReplacer("-", "", "SHA256:", "", "/", "", "+", "").Replace(s)
	return s[:min(len(s), 12)]
}

// Size is how much CPU and memory there is.
type Size struct {
	CPU    resource.Quantity
	Memory resource.Quantity
	// Storage is the size of the file system below the state directory.
	Storage resource.Quantity
}

// Measure reads the machine's size; stateDir's file system counts as its storage.
func Measure(root, stateDir string) (Size, error) {
	memory, err := Meminfo(root, "MemTotal")
	if err != nil {
		return Size{}, err
	}
	disk, err := DiskOf(stateDir)
	if err != nil {
		return Size{}, err
	}
	return Size{
		CPU:     *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		Memory:  *resource.NewQuantity(memory, resource.BinarySI),
		Storage: *resource.NewQuantity(disk.Capacity, resource.BinarySI),
	}, nil
}

// Meminfo is a row of /proc/meminfo, in bytes.
func Meminfo(root, row string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if name != row {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s of /proc/meminfo: %w", row, err)
		}
		return kib * 1024, nil
	}
	return 0, fmt.Errorf("/proc/meminfo has no row %q", row)
}

func line(root, path string) string {
	raw, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func osImage(root string) string {
	for l := range strings.Lines(line(root, "etc/os-release")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return runtime.GOOS
}
