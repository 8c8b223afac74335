package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/ossfs"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

// buckets looks for what mounts the contract's object storage: the kernel's FUSE and a
// helper. A machine whose pods use no bucket needs neither.
func buckets(_ context.Context, s *sight) []Finding {
	why := "pods with a bucket (driver " + contract.OSSDriver + ") wait; others don't need it"
	var all []Finding
	if _, err := os.Stat(filepath.Join(s.Root, "dev/fuse")); err != nil {
		all = append(all, found(Warning, "there is no /dev/fuse", why, "Load the kernel's module:  modprobe fuse")...)
	}
	var names []string
	for _, helper := range ossfs.Helpers { // the first is the one that is used
		names = append(names, string(helper))
		if path, err := exec.LookPath(string(helper)); err == nil {
			return append(all, saw(path+" mounts buckets")...)
		}
	}
	return append(all, found(Warning, "none of "+strings.Join(names, ", ")+" is installed", why, "Install one:  apt-get install s3fs")...)
}

// drivers asks the CSI drivers that show themselves on this machine who they are, as
// the agent does.
func drivers(ctx context.Context, s *sight) []Finding {
	dir := s.Config.PluginsDir()
	sockets, err := pluginregistration.Sockets(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found(Warning, fmt.Sprintf("%s can't be read: %v", dir, err), "CSI drivers register there")
	}
	var all []Finding
	for _, socket := range sockets {
		p, err := pluginregistration.Ask(ctx, socket)
		switch {
		case err != nil:
			all = append(all, found(Warning, err.Error(), "pods with its volumes wait", "Start it, or remove what it left:  rm "+socket)...)
		case p.Type != registration.CSIPlugin:
			all = append(all, found(Warning, fmt.Sprintf("%s is a plugin of type %s", p.Name, p.Type), "AI nodes take CSI drivers alone")...)
		case p.Name == contract.OSSDriver:
			all = append(all, found(Warning, p.Name+" shows itself at "+socket, "it is not asked: the agent mounts the volumes of this driver itself")...)
		default:
			all = append(all, saw(fmt.Sprintf("%s serves at %s", p.Name, p.Endpoint))...)
		}
	}
	if len(all) == 0 {
		return saw("no CSI driver shows itself in " + dir + "; none is needed for buckets")
	}
	return all
}
