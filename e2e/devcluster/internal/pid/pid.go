// Package pid names a process so that a later process with the same number is
// not taken for it: by its number and the moment it started.
package pid

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Identity is one process, now or gone.
type Identity struct {
	Number int
	Start  string // clock ticks since boot, and the boot it counts from
}

// Of looks a running process up. A zombie counts as gone.
func Of(number int) (Identity, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", number))
	if err != nil {
		return Identity{}, fmt.Errorf("process %d is gone", number)
	}
	start, err := parseStat(string(data))
	if err != nil {
		return Identity{}, fmt.Errorf("process %d: %w", number, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, fmt.Errorf("reading the boot id: %w", err)
	}
	return Identity{Number: number, Start: start + "@" + strings.TrimSpace(string(boot))}, nil
}

// parseStat takes the start time, the 22nd field of /proc/PID/stat. The second,
// the program's name in brackets, may itself hold blanks and brackets.
func parseStat(stat string) (string, error) {
	end := strings.LastIndex(stat, ")")
	if end < 0 {
		return "", errors.New("its stat line has no name")
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", errors.New("its stat line is short")
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", errors.New("it has ended")
	}
	return fields[19], nil
}

// Alive tells whether this very process still runs.
func (id Identity) Alive() bool {
	now, err := Of(id.Number)
	return err == nil && now == id
}

// Write records the process as file (the bare number, for other programs) and
// file's companion with the start.
func (id Identity) Write(file string) error {
	if err := os.WriteFile(companion(file), []byte(id.Start+"\n"), 0o644); err != nil {
		return fmt.Errorf("recording a process: %w", err)
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(id.Number)+"\n"), 0o644); err != nil {
		return fmt.Errorf("recording a process: %w", err)
	}
	return nil
}

// Read takes back what Write recorded.
func Read(file string) (Identity, error) {
	number, err := os.ReadFile(file)
	if err != nil {
		return Identity{}, fmt.Errorf("reading the process record: %w", err)
	}
	start, err := os.ReadFile(companion(file))
	if err != nil {
		return Identity{}, fmt.Errorf("reading the process record: %w", err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(number)))
	if err != nil || value <= 1 {
		return Identity{}, fmt.Errorf("reading the process record: %s holds no process number", file)
	}
	return Identity{Number: value, Start: strings.TrimSpace(string(start))}, nil
}

// Remove deletes the record.
func Remove(file string) {
	_ = os.Remove(file)
	_ = os.Remove(companion(file))
}

func companion(file string) string { return strings.TrimSuffix(file, ".pid") + ".start" }

// Signal reaches this very process or none.
func (id Identity) Signal(signal syscall.Signal) error {
	if !id.Alive() {
		return os.ErrProcessDone
	}
	return syscall.Kill(id.Number, signal)
}

// WaitGone waits for the process to end.
func (id Identity) WaitGone(patience time.Duration) bool {
	for end := time.Now().Add(patience); id.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
