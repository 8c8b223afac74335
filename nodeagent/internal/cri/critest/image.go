package critest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images that every containerd of this package has. Both hold busybox.
const (
	Pause   = "localhost/test/pause:1"
	Busybox = "localhost/test/busybox:1"
)

// applets of busybox that the images have under their names.
var applets = []string{"sh", "sleep", "cat", "echo", "ls", "true", "false", "nc", "httpd", "id", "env", "kill", "wget", "touch", "test"}

// Image makes an image of busybox and more files (path to content), mode 0755.
func Image(t testing.TB, more map[string]string) v1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	require.NoError(t, err, "the distribution's package busybox-static is needed")
	busybox, err := os.ReadFile(path)
	require.NoError(t, err)

	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	write := func(header *tar.Header, content []byte) {
		header.Size = int64(len(content))
		require.NoError(t, archive.WriteHeader(header))
		_, err := archive.Write(content)
		require.NoError(t, err)
	}
	for _, folder := range []string{"bin/", "etc/", "tmp/", "root/"} {
		write(&tar.Header{Name: folder, Typeflag: tar.TypeDir, Mode: 0o777}, nil)
	}
	write(&tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, applet := range applets {
		write(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	write(&tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	for path, content := range more {
		write(&tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: 0o755}, []byte(content))
	}
	require.NoError(t, archive.Close())

	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	})
	require.NoError(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	require.NoError(t, err)
	file, err := image.ConfigFile()
	require.NoError(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "2147483647"}}
	image, err = mutate.ConfigFile(image, file)
	require.NoError(t, err)
	return image
}

// Load makes an image and imports it under that name.
func (c *Containerd) Load(t testing.TB, reference string, more map[string]string) {
	t.Helper()
	tag, err := name.NewTag(reference)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, tarball.WriteToFile(path, tag, Image(t, more)))
	out, err := exec.Command(filepath.Join(c.bin, "ctr"), "--address", c.Socket, "--namespace", "k8s.io",
		"images", "import", path).CombinedOutput()
	require.NoError(t, err, "import %s: %s", reference, out)
	// Which ctr has told the image service; CRI's own hears of it by an event.
	require.Eventually(t, func() bool {
		known, err := c.Runtime.Images.ImageStatus(t.Context(), &runtimeapi.ImageSpec{Image: reference}, false)
		return err == nil && known.GetImage() != nil
	}, time.Minute, 10*time.Millisecond, "CRI knows %s", reference)
}
