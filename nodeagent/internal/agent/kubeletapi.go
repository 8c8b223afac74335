package agent

import (
	"context"
	"net"
	"strconv"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/gpumetrics"
	"github.com/ainode/ainode/nodeagent/internal/kubeletapi"
	"github.com/ainode/ainode/nodeagent/internal/probes"
	"github.com/ainode/ainode/nodeagent/internal/usage"
)

// api is the node's kubelet API, :10250, which listens.
type api struct {
	run   func(context.Context) error
	close func()
}

// newAPI listens, and begins to ask for a certificate.
func (t *tenant) newAPI(ctx context.Context, target binding.Target, c clients, rooms *podRooms, meter *usage.Meter) (*api, error) {
	certificates, err := kubeletapi.NewCertificates(ctx, c.pods, t.node, t.at(target.Address), t.cfg.StateDir.ServingCertificates(), t.clock)
	if err != nil {
		return nil, err
	}
	server, err := kubeletapi.New(kubeletapi.Options{
		Node: t.node, Address: net.JoinHostPort(t.at(target.Address), strconv.Itoa(t.cfg.Port)), Client: c.reviews, ClientCA: target.ClientCA,
		Certificate: certificates.Current, Pods: rooms, Usage: meter, Runtime: t.runtime.RuntimeService, Images: t.runtime.Images,
		Probes: probes.Metrics(), GPUs: gpumetrics.Gatherer(t.cardMetrics()), Clock: t.clock,
	})
	if err != nil {
		return nil, err
	}
	listener, err := server.Listen(ctx)
	if err != nil {
		return nil, err
	}
	certificates.Start()
	t.serveWith(certificates)
	return &api{
		run:   func(ctx context.Context) error { return server.Serve(ctx, listener) },
		close: func() { t.serveWith(nil); certificates.Stop() },
	}, nil
}
