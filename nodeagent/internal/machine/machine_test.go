package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, root, path, text string) {
	t.Helper()
	full := filepath.Join(root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(t, os.WriteFile(full, []byte(text), 0o600))
}

func TestIdentityTellsBootsAndCopiesApart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	_, err := Read(root)
	require.ErrorContains(t, err, "boot_id")

	write(t, root, "proc/sys/kernel/random/boot_id", "1b2c3d4e-aaaa-bbbb-cccc-000000000001\n")
	write(t, root, "etc/machine-id", "0123456789abcdef\n")
	write(t, root, "etc/os-release", "ID=x\nPRETTY_NAME=\"Some Linux 1\"\n")
	first, err := Read(root)
	require.NoError(t, err)
	require.Equal(t, "Some Linux 1", first.OSImage)
	require.Equal(t, "0123456789abcdef_1b2c3d4eaaaa_k", first.Holder("k"))
	require.NotEqual(t, first.Holder("k"), first.Holder("l"))

	write(t, root, "sys/class/dmi/id/product_uuid", "PRODUCT\n")
	second, err := Read(root)
	require.NoError(t, err)
	require.Equal(t, "PRODUCT_1b2c3d4eaaaa_k", second.Holder("k"))
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "proc/meminfo", "MemTotal:       24000000 kB\nMemFree: 1 kB\n")
	size, err := Measure(root, root)
	require.NoError(t, err)
	require.EqualValues(t, 24000000*1024, size.Memory.Value())
	require.Positive(t, size.CPU.Value())
	require.Positive(t, size.Storage.Value())
	_, err = Meminfo(root, "Nothing")
	require.Error(t, err)
}
