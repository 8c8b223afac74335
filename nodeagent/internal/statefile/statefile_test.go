package statefile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func TestWriteReplacesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	require.NoError(t, statefile.Write(path, []byte("a longer one"), 0o600))
	open, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = open.Close() }()
	require.NoError(t, statefile.Write(path, []byte("two"), 0o666))

	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(raw))
	old := make([]byte, 32)
	n, err := open.Read(old)
	require.NoError(t, err)
	require.Equal(t, "a longer one", string(old[:n]), "who reads it meanwhile reads the old one to its end")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o666), info.Mode().Perm(), "which no umask lets pass")
	require.Equal(t, []string{"a.json"}, names(t, dir))
}

// Somebody who reads while several write never sees half a file, nor two mixed.
func TestSeveralWriteAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<10)}
	require.NoError(t, statefile.Write(path, contents[0], 0o600))
	var writers sync.WaitGroup
	for _, content := range contents {
		writers.Go(func() {
			for range 20 {
				if err := statefile.Write(path, content, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { writers.Wait(); close(written) }()
	for reads := 0; ; reads++ {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(raw, contents[0]) || bytes.Equal(raw, contents[1]), "read %d bytes that nobody wrote", len(raw))
		select {
		case <-written:
			require.NotZero(t, reads)
			require.Equal(t, []string{"a.json"}, names(t, dir))
			return
		default:
		}
	}
}

func TestAWriteThatFailsLeavesTheOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.ErrorIs(t, statefile.Write(filepath.Join(dir, "none", "a.json"), nil, 0o600), syscall.ENOENT)

	path := filepath.Join(dir, "a.json") // a folder, which no file takes the place of
	require.NoError(t, os.MkdirAll(filepath.Join(path, "full"), 0o700))
	require.ErrorContains(t, statefile.Write(path, []byte("secret"), 0o600), path)
	require.Equal(t, []string{"a.json"}, names(t, dir), "nothing of what was to be written stays")
}

func TestRemove(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, name := range []string{"a.json", "a.json.new", "a.json.new-12", "a.json.old", "b.json", "b.json.new-7"} {
		require.Equal(t, strings.Contains(name, ".new"), statefile.Unfinished(name))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.NoError(t, statefile.Remove(path))
	require.Equal(t, []string{"a.json.old", "b.json", "b.json.new-7"}, names(t, dir))
	require.NoError(t, statefile.Remove(path), "none is as good as removed")
	require.NoError(t, statefile.Remove(filepath.Join(dir, "none", "a.json")))
}
