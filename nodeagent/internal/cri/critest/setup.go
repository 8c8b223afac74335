package critest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// oldModule is a containerd that knows CDI and does not use it unless it is told to.
const oldModule, oldVersion = "github.com/containerd/containerd", "v1.7.29"

// Setup is what a containerd is like.
type Setup struct {
	// Old is containerd 1.7, the last of version 1, instead of the one that the product
	// is tested with.
	Old bool
	// CDI turns CDI on in an old one; a newer one has it always.
	CDI bool
	// Handlers are more runtime handlers, by name: the program that stands for runc.
	Handlers map[string]string
	// Default handler; empty is runc.
	Default string
}

// programs is the folder of containerd's programs.
func (s Setup) programs(t testing.TB) string {
	t.Helper()
	if !s.Old {
		return binaries(t)
	}
	dir := cache(t, "containerd-"+oldVersion)
	// It can't be installed by its version: its go.mod excludes others, which only a main
	// module may.
	once(t, dir, programs, func(program string) {
		module := t.TempDir()
		for _, args := range [][]string{
			{"mod", "init", "containerd-old"},
			{"get", oldModule + "@" + oldVersion},
			{"build", "-mod=mod", "-tags", "no_btrfs,no_devmapper,no_zfs,no_aufs", "-ldflags", "-X " + oldModule + "/version.Version=" + oldVersion,
				"-o", filepath.Join(dir, "part") + string(filepath.Separator), oldModule + "/cmd/" + program},
		} {
			goTool(t, module, nil, args...)
		}
	})
	return dir
}

func (s Setup) config(c *Containerd) string {
	runtime, text := "io.containerd.cri.v1.runtime", fmt.Sprintf(`version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '%s'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['%s']
  conf_dir = '%s'
[plugins.'io.containerd.cri.v1.runtime']
`, Pause, c.CNIBinDir(), c.CNIConfDir())
	if s.Old {
		runtime, text = "io.containerd.grpc.v1.cri", fmt.Sprintf(`version = 2
[plugins.'io.containerd.grpc.v1.cri'.cni]
  bin_dir = '%[2]s'
  conf_dir = '%[3]s'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '%[1]s'
  enable_cdi = %[4]t
`, Pause, c.CNIBinDir(), c.CNIConfDir(), s.CDI)
	}
	text += fmt.Sprintf(`  restrict_oom_score_adj = true
  cdi_spec_dirs = ['%s']
`, c.CDIDir())
	if s.Default != "" {
		text += fmt.Sprintf("[plugins.'%s'.containerd]\n  default_runtime_name = '%s'\n", runtime, s.Default)
	}
	handlers := maps.Clone(s.Handlers)
	if len(handlers) > 0 { // to name one in an old one is to name all
		handlers["runc"] = "runc"
	}
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		text += fmt.Sprintf(`[plugins.'%[1]s'.containerd.runtimes.'%[2]s']
  runtime_type = 'io.containerd.runc.v2'
[plugins.'%[1]s'.containerd.runtimes.'%[2]s'.options]
  BinaryName = '%[3]s'
`, runtime, name, handlers[name])
	}
	// Tables come after what stands in none.
	return fmt.Sprintf(`disabled_plugins = ['io.containerd.nri.v1.nri']
root = '%[1]s/root'
state = '%[1]s/state'
`, c.dir) + text + fmt.Sprintf(`[grpc]
  address = '%[2]s'
[ttrpc]
  address = '%[2]s.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '%[1]s/opt'
`, c.dir, c.Socket)
}

// SetUp gives a containerd other settings and starts it anew; its containers live.
func (c *Containerd) SetUp(t testing.TB, setup Setup) {
	t.Helper()
	if setup.Old != c.setup.Old {
		t.Fatal("a containerd stays as old as it is")
	}
	c.setup = setup
	c.Restart(t)
}

// Wrapped makes a program that does what runc does and notes that it was asked to.
func Wrapped(t testing.TB, name string) (program string, calls func() string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), name)
	log := program + ".log"
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >>"+log+"\nexec runc \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, func() string { text, _ := os.ReadFile(log); return string(text) }
}
