package pluginregistration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// answerWithin is how long a plugin may take to answer one call.
const answerWithin = 10 * time.Second

// Ask asks the plugin at a socket who it is.
func Ask(ctx context.Context, socket string) (Plugin, error) {
	client, done, err := dial(socket)
	if err != nil {
		return Plugin{}, err
	}
	defer done()
	return ask(ctx, client, socket)
}

func ask(ctx context.Context, client registration.RegistrationClient, socket string) (Plugin, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	info, err := client.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return Plugin{}, fmt.Errorf("ask the plugin at %s who it is: %w", socket, err)
	}
	p := Plugin{Type: info.Type, Name: info.Name, Socket: socket, Endpoint: info.Endpoint, Versions: info.SupportedVersions}
	if p.Name == "" {
		return Plugin{}, fmt.Errorf("the plugin at %s has no name", socket)
	}
	if p.Endpoint == "" {
		p.Endpoint = socket
	}
	return p, nil
}

// register hands the plugin over, and tells it what came of that. drop takes it back.
func (w *Watcher) register(ctx context.Context, socket string) (drop func(), err error) {
	client, done, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := ask(ctx, client, socket)
	if err != nil {
		return nil, err
	}
	handler, ok := w.Handlers[p.Type]
	if !ok {
		err = fmt.Errorf("plugins of type %q are not taken on AI nodes", p.Type)
	} else if err = handler.Register(ctx, p); err == nil {
		drop = func() {
			handler.Deregister(p)
			klog.FromContext(ctx).Info("A plugin is gone", "type", p.Type, "name", p.Name)
		}
	}
	if told := notify(ctx, client, err); told != nil {
		if drop != nil {
			drop() // as the kubelet does: it may think that it was refused
		}
		return nil, errors.Join(err, told)
	}
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("A plugin is registered", "type", p.Type, "name", p.Name, "endpoint", p.Endpoint)
	return drop, nil
}

// notify tells the plugin whether it is registered, and if not, why.
func notify(ctx context.Context, client registration.RegistrationClient, refused error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	status := &registration.RegistrationStatus{PluginRegistered: refused == nil}
	if refused != nil {
		status.Error = refused.Error()
	}
	if _, err := client.NotifyRegistrationStatus(ctx, status); err != nil {
		return fmt.Errorf("tell the plugin whether it is registered: %w", err)
	}
	return nil
}

func dial(socket string) (client registration.RegistrationClient, done func(), err error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithAuthority("localhost"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the plugin at %s: %w", socket, err)
	}
	return registration.NewRegistrationClient(conn), func() { _ = conn.Close() }, nil
}
