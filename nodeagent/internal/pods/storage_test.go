package pods

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
	"github.com/ainode/ainode/nodeagent/internal/readcache"
)

const (
	storageObject = int64(1 << 30)
	storageRounds = 9
	storageRead   = "busybox time -f %%e busybox dd if=%s/weights of=/dev/null bs=1M 2>&1"
)

// BenchmarkStorage compares reading an object through a pod's mount with reading it by
// the same FUSE client, options and program by hand. It is for `make bench-storage`.
func BenchmarkStorage(b *testing.B) {
	m := newMachine(b)
	cache := readcache.New(readcache.Options{
		Target: filepath.Join(b.TempDir(), "cache"), Image: filepath.Join(m.root, "image"), Size: 4 * storageObject, Mounter: mount.New(""), Clock: clock.RealClock{},
	})
	require.NoError(b, cache.Open(b.Context()))
	b.Cleanup(func() { require.NoError(b, cache.Close()) })
	m.cache = cache
	gateway := s3test.Start(b)
	gateway.Zeros(b, "models", "weights", storageObject)
	m.bucket(gateway, "models")
	m.bound()
	m.start()
	pod := storagePod("plain")
	m.create(pod)
	defer m.end("plain")
	m.awaitPhase("plain", corev1.PodRunning)
	hand := m.mountByHand(b)

	m.askForCache(b)
	cached := storagePod("cached")
	m.create(cached)
	defer m.end("cached")
	m.awaitPhase("cached", corev1.PodRunning)

	b.ResetTimer()
	for range b.N {
		var byHand, through, ratios, first, again []float64
		for round := range storageRounds {
			measures := []func(){
				func() { byHand = append(byHand, readRate(b, hand)) },
				func() { through = append(through, m.readRate(b, pod)) },
			}
			if round%2 == 1 { // whoever comes first has no advantage
				slices.Reverse(measures)
			}
			for _, measure := range measures {
				measure()
			}
			ratios = append(ratios, through[round]/byHand[round])
			// An object that has changed is not read from the cache.
			gateway.Zeros(b, "models", "weights", storageObject)
			first, again = append(first, m.readRate(b, cached)), append(again, m.readRate(b, cached))
		}
		fmt.Printf("\nan object of %d MiB read by dd in pieces of 1 MiB through s3fs from an S3 gateway on loopback;\n%d processors, %s; medians of %d alternating rounds; the object lies in the page cache\n\n",
			storageObject>>20, runtime.NumCPU(), runtime.Version(), storageRounds)
		fmt.Printf("  %-34s %8s\n", "", "MB/s")
		fmt.Printf("  %-34s %8.0f\n", "by hand", middle(byHand))
		fmt.Printf("  %-34s %8.0f   %.2f of that by hand (rounds %.2f to %.2f)\n", "through a pod's mount", middle(through), middle(ratios), slices.Min(ratios), slices.Max(ratios))
		fmt.Printf("  %-34s %8.0f\n", "with a cache, the first time", middle(first))
		fmt.Printf("  %-34s %8.0f\n", "with a cache, again", middle(again))
		b.ReportMetric(middle(ratios), "pod/hand")
	}
}

// storagePod asks for a CPU: without, it would be the last to get one, and the reading by
// hand not.
func storagePod(name string) *corev1.Pod {
	pod := claiming(name)
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	return pod
}

// mountByHand mounts what the machine's only helper has mounted, with its very options.
func (m *machine) mountByHand(b *testing.B) string {
	b.Helper()
	helpers := m.helpers()
	require.Len(b, helpers, 1)
	raw, err := os.ReadFile(filepath.Join("/proc", helpers[0], "cmdline"))
	require.NoError(b, err)
	dir := b.TempDir()
	at := filepath.Join(dir, "mnt")
	require.NoError(b, os.Mkdir(at, 0o700))
	require.NoError(b, os.WriteFile(filepath.Join(dir, "passwd"), []byte(s3test.KeyID+":"+s3test.KeySecret+"\n"), 0o600))
	var args []string
	for i, raw := range bytes.Split(bytes.TrimRight(raw, "\x00"), []byte{0}) {
		arg := string(raw)
		switch {
		case i == 2:
			arg = at
		case strings.HasPrefix(arg, "passwd_file="):
			arg = "passwd_file=" + filepath.Join(dir, "passwd")
		case strings.HasPrefix(arg, "tmpdir="):
			arg = "tmpdir=" + dir
		}
		args = append(args, arg)
	}
	helper := exec.Command(args[0], args[1:]...)
	require.NoError(b, helper.Start())
	b.Cleanup(func() {
		require.NoError(b, mount.New("").Unmount(at))
		require.NoError(b, helper.Wait())
	})
	require.Eventually(b, func() bool { _, err := os.Stat(filepath.Join(at, "weights")); return err == nil }, patience, 10*time.Millisecond)
	return at
}

// askForCache has pods that come ask for a cache.
func (m *machine) askForCache(b *testing.B) {
	b.Helper()
	volumes := m.client.CoreV1().PersistentVolumes()
	volume, err := volumes.Get(b.Context(), "oss-test", metav1.GetOptions{})
	require.NoError(b, err)
	volume.Spec.CSI.VolumeAttributes["otherOpts"] += " -o use_cache"
	_, err = volumes.Update(b.Context(), volume, metav1.UpdateOptions{})
	require.NoError(b, err)
}

// readRate is what is read in the pod, in megabytes a second.
func (m *machine) readRate(b *testing.B, pod *corev1.Pod) float64 {
	b.Helper()
	return rate(b, m.sh(pod, fmt.Sprintf(storageRead, "/oss-data")))
}

func readRate(b *testing.B, dir string) float64 {
	b.Helper()
	said, err := exec.Command("sh", "-c", fmt.Sprintf(storageRead, dir)).CombinedOutput()
	require.NoError(b, err, "%s", said)
	return rate(b, string(said))
}

// rate is what dd and time say: pieces, and seconds in the last line.
func rate(b *testing.B, said string) float64 {
	b.Helper()
	lines := strings.Split(strings.TrimSpace(said), "\n")
	require.Contains(b, lines[0], fmt.Sprintf("%d+0 records in", storageObject>>20))
	seconds, err := strconv.ParseFloat(lines[len(lines)-1], 64)
	require.NoError(b, err)
	return float64(storageObject) / 1e6 / seconds
}

// middle is the median.
func middle(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
