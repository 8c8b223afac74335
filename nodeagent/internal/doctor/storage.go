package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

// drivers asks the CSI drivers that show themselves on this machine who they are, as
// the agent does.
func drivers(ctx context.Context, s *sight) []diagnosis.Finding {
	dir := s.Config.PluginsDir()
	sockets, err := pluginregistration.Sockets(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found(Warning, fmt.Sprintf("%s can't be read: %v", dir, err), "CSI drivers register there")
	}
	var all []diagnosis.Finding
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
