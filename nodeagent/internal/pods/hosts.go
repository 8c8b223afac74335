package pods

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/admission"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// etcHosts is where a container reads host names, and the machine too.
const etcHosts = "/etc/hosts"

// hostsMount writes the pod's /etc/hosts, one file for all its containers, and adds its
// mount, unless the container has a mount of its own there. Like the kubelet it writes
// anew at each start what a container has changed.
func (w *worker) hostsMount(pod *corev1.Pod, mounts []*runtimeapi.Mount) ([]*runtimeapi.Mount, error) {
	if slices.ContainsFunc(mounts, func(m *runtimeapi.Mount) bool { return path.Clean(m.ContainerPath) == etcHosts }) {
		return mounts, nil
	}
	machine, err := os.ReadFile(w.m.o.HostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the machine's host names: %w", err)
	}
	text := crispec.Hosts(pod, crispec.HostsOptions{
		Network: w.m.o.Network, IPs: w.addresses(), Machine: string(machine), ClusterDomain: w.m.o.ClusterDomain,
	})
	file := filepath.Join(w.m.messages.folder(pod.UID), "etc-hosts")
	if err := writeInPlace(file, text); err != nil {
		return nil, fmt.Errorf("write the pod's host names: %w", err)
	}
	return append(mounts, &runtimeapi.Mount{ContainerPath: etcHosts, HostPath: file, SelinuxRelabel: true}), nil
}

// writeInPlace makes text the content of the file, which running containers have
// mounted: it stays the same file, and is left alone where nothing differs. What a
// container has written into it may be larger than memory, so it is not read for that.
func writeInPlace(file, text string) error {
	if info, err := os.Stat(file); err == nil && info.Size() == int64(len(text)) {
		if known, err := os.ReadFile(file); err == nil && string(known) == text {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { // any user of the pod may read
		return err
	}
	// Whatever the umask.
	return os.Chmod(file, 0o644) // any user of the pod may read
}

// tellNames says what of the pod's names it does not get.
func (w *worker) tellNames(pod *corev1.Pod) {
	_, omitted := crispec.DNS(pod, w.m.resolv())
	for _, what := range omitted {
		w.tellOnce(pod, eventDNSConfig, what)
	}
	if ask := pod.Spec.SetHostnameAsFQDN; ask != nil && *ask && w.m.shared() {
		w.tellOnce(pod, admission.NotSupported, "setHostnameAsFQDN: pods on this node share the machine's address and host name; "+
			"the full name is in $HOSTNAME and /etc/hosts, the host name is the machine's")
	}
}

// tellOnce publishes a warning about the pod once in the agent's life.
func (w *worker) tellOnce(pod *corev1.Pod, reason, message string) {
	key := reason + message
	if _, said := w.told[key]; !said {
		w.tell(podRef(pod), key, reason, message, message)
	}
}
