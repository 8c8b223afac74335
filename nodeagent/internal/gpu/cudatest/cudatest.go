// Package cudatest gives tests a program that uses NVIDIA cards by CUDA, and an image's
// worth of files to run it in a container. It needs gcc, and no CUDA to be built.
package cudatest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// Path of the program in a container that has Files.
const Path = "/bin/cuda"

// Program builds the program; see testdata/cuda.c for what it can be asked.
func Program(t testing.TB) string {
	t.Helper()
	// All the libraries that CUDA's needs, so that Files has them: an image of these
	// files has no other.
	return compile(t, "cuda.c", "cuda", "-Wl,--no-as-needed", "-ldl", "-lm", "-lpthread", "-lrt")
}

// Hook is NVIDIA's program that CDI specs have called when a container is made: the
// machine's own, or one built from the toolkit's module.
func Hook(t testing.TB) string {
	t.Helper()
	if path, err := gpu.FindHook(); err == nil {
		return path
	}
	return filepath.Join(critest.Programs(t, "nvidia-container-toolkit-v1.20.1", "github.com/NVIDIA/nvidia-container-toolkit/cmd/%s@v1.20.1", "nvidia-cdi-hook"), "nvidia-cdi-hook")
}

func compile(t testing.TB, source, name string, more ...string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	program := filepath.Join(t.TempDir(), name)
	args := append([]string{"-O2", "-Wall", "-o", program, filepath.Join(filepath.Dir(here), "testdata", source)}, more...)
	out, err := exec.Command("gcc", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// Files are the program, at Path, and the libraries and the loader that it runs with: this
// machine's own, since CUDA's library is this machine's too.
func Files(t testing.TB) map[string]string {
	t.Helper()
	program := Program(t)
	files := map[string]string{Path: read(t, program)}
	out, err := exec.Command("ldd", program).Output()
	require.NoError(t, err)
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			files[field] = read(t, field)
		}
	}
	return files
}

// Driver builds what stands for CUDA's library where there is no card.
func Driver(t testing.TB) string {
	t.Helper()
	return compile(t, "driver.c", "libcuda.so.1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")
}

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}
