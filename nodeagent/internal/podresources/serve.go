package podresources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Serve answers at the socket until ctx ends. Pods do not depend on it, so that it can't
// be served is told in the log, and no error: a kubelet of this machine may serve there.
func Serve(ctx context.Context, socket string, pods Pods, cards Cards) error {
	listener, err := listen(ctx, socket)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Monitors on this machine are not told which pod has which GPU")
		<-ctx.Done()
		return nil
	}
	server := grpc.NewServer()
	podresourcesv1.RegisterPodResourcesListerServer(server, answers{pods: pods, cards: cards})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the PodResources API: %w", err)
	}
	return nil
}

// listen takes the socket's place, unless somebody answers there.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of the PodResources socket: %w", err)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if connection, err := dialer.DialContext(ctx, "unix", socket); err == nil {
		_ = connection.Close()
		return nil, fmt.Errorf("serve the PodResources API: another program answers at %s", socket)
	}
	// What an earlier life of the agent left.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("take away the old PodResources socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("serve the PodResources API: %w", err)
	}
	return listener, nil
}
