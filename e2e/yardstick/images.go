package yardstick

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// image is one of the suite's images as it is made here, where no registry is: the
// same name and entrypoint, and programs that do what the tests ask of them.
type image struct {
	ref string
	// of are the arguments of `devcluster load-image` that say what it is made of.
	of []string
}

// images lists what the tests name, as in Kubernetes' test/utils/image/manifest.go
// at the version that e2e/conformance/go.mod has. Their systems differ (Alpine,
// Debian, nothing at all); here all but pause are this machine's busybox and bash.
//
// Debian's busybox makes a poor shell here: it drops environment variables whose names
// are no identifiers, and prefers its own nc, which knows no UDP, to any other. So
// agnhost has bash for a shell. In busybox a test that says sh gets bash, and one that
// says /bin/sh busybox, whose words for errors are those that a test looks for.
func (y *Yardstick) images() []image {
	const registry = "registry.k8s.io/"
	const tests = registry + "e2e-test-images/"
	const bash = "/bin/bash-static"
	agnhost := []string{"--demo", "--add", y.path("agnhost") + ":/", "--add", bash + ":/bin/sh:0755", "--entrypoint", "/agnhost", "--cmd", "pause"}
	return []image{
		{tests + "agnhost:2.66.1", agnhost},
		// Tests change a pod's image from this to that.
		{tests + "agnhost:2.55", append(slices.Clone(agnhost), "--env", "AGNHOST=2.55")},
		{tests + "busybox:1.37.0-2", []string{"--demo", "--add", bash + ":/usr/local/bin/sh:0755", "--cmd", "sh"}},
		{tests + "glibc-dns-testing:2.1.1", []string{"--demo", "--cmd", "sh"}},
		{tests + "nonewprivs:1.4", []string{"--demo", "--add", y.program("nonewprivs") + ":/usr/local/bin/nnp:4755", "--cmd", "nnp"}},
		{tests + "nonroot:1.5", []string{"--demo", "--cmd", "sh", "--user", "1234"}},
		{registry + "pause:3.10.2", []string{"--add", filepath.Join(y.story.Dir, "bin", "pause") + ":/pause:0755", "--entrypoint", "/pause"}},
	}
}

// loadImages makes the images and brings them to the ordinary node and the machine.
func (y *Yardstick) loadImages(ctx context.Context) error {
	if err := y.layOutAgnhost(ctx); err != nil {
		return fmt.Errorf("lay out the agnhost image: %w", err)
	}
	for _, image := range y.images() {
		for _, room := range []string{"node", "machine"} {
			if err := y.story.LoadImage(ctx, image.ref, append(slices.Clone(image.of), "--to", room)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// layOutAgnhost makes the folder that becomes the agnhost image, with what its
// Dockerfile adds and tests look for: curl and nc, a second name of the program, a
// certificate, and a user with a group that only the image knows.
func (y *Yardstick) layOutAgnhost(ctx context.Context) error {
	root := y.path("agnhost")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	sources, err := exec.CommandContext(ctx, "go", "-C", filepath.Join(y.Root, module), "list", "-f", "{{.Dir}}", "k8s.io/kubernetes/test/images/agnhost").Output()
	if err != nil {
		return err
	}
	porter := filepath.Join(strings.TrimSpace(string(sources)), "porter")
	for target, source := range map[string]string{
		"agnhost":       y.program("agnhost"),
		"localhost.crt": filepath.Join(porter, "localhost.crt"),
		"localhost.key": filepath.Join(porter, "localhost.key"),
	} {
		if err := copyFile(source, filepath.Join(root, target)); err != nil {
			return err
		}
	}
	if err := os.Symlink("agnhost", filepath.Join(root, "agnhost-2")); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n",
		"group":  "root:x:0:\nnobody:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n",
	} {
		if err := write(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"curl", "nc"} {
		if err := copyProgram(ctx, name, root); err != nil {
			return err
		}
	}
	return nil
}

var library = regexp.MustCompile(`/\S+`)

// copyProgram copies a program of this machine into root, with the libraries that it
// needs.
func copyProgram(ctx context.Context, name, root string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%w: apt-get install -y curl netcat-openbsd", err)
	}
	needs, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", program, err)
	}
	for _, path := range library.FindAllString(string(needs), -1) {
		if err := copyFile(path, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	return copyFile(program, filepath.Join(root, "usr", "bin", name))
}

func copyFile(source, target string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	return write(target, content, info.Mode().Perm()|0o444)
}

func write(target string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, content, mode)
}
