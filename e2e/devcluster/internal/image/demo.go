package image

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// Demo is a small system to play with: busybox with all its commands, bash,
// and the files a shell looks for.
func Demo() (Spec, error) {
	busybox, err := static("busybox-static", "/usr/bin/busybox", "/bin/busybox")
	if err != nil {
		return Spec{}, err
	}
	bash, err := static("bash-static", "/bin/bash-static", "/usr/bin/bash-static")
	if err != nil {
		return Spec{}, err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return Spec{}, fmt.Errorf("listing the commands of %s: %w", busybox, err)
	}
	files := []File{
		{Source: busybox, Target: "/bin/busybox", Mode: 0o755},
		{Source: bash, Target: "/bin/bash", Mode: 0o755},
		{Target: "/etc/passwd", Content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", Mode: 0o644},
		{Target: "/etc/group", Content: "root:x:0:\nnobody:x:65534:\n", Mode: 0o644},
		{Target: "/root", Mode: fs.ModeDir | 0o700},
		{Target: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Target: "/usr/bin", Mode: fs.ModeDir | 0o755},
		{Target: "/var", Mode: fs.ModeDir | 0o755},
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" && name != "bash" {
			files = append(files, File{Target: "/bin/" + name, Link: "busybox"})
		}
	}
	return Spec{Files: files, Cmd: []string{"/bin/sh"}}, nil
}

// static finds a program that needs no library.
func static(pkg string, candidates ...string) (string, error) {
	for _, candidate := range candidates {
		if IsStatic(candidate) {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("no static program at %s: apt-get install -y %s", strings.Join(candidates, " or "), pkg)
}

// IsStatic tells whether file is a program that needs no library.
func IsStatic(file string) bool {
	if _, err := os.Stat(file); err != nil {
		return false
	}
	program, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer program.Close()
	for _, header := range program.Progs {
		if header.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
