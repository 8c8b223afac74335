package probes

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// askGRPC asks the health service (grpc.health.v1.Health) at address.
func askGRPC(ctx context.Context, address, service string, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/"+Version),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer().DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return answer{output: fmt.Sprintf("error: failed to connect service at %q: %v", address, err)}
	}
	defer func() { _ = connection.Close() }()
	response, err := health.NewHealthClient(connection).Check(ctx, &health.HealthCheckRequest{Service: service})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unavailable:
		return answer{output: fmt.Sprintf("error: failed to connect service at %q: %v", address, err)}
	case codes.Unimplemented:
		return answer{output: "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + status.Convert(err).Message()}
	case codes.DeadlineExceeded:
		return answer{output: fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)}
	default:
		return answer{output: fmt.Sprintf("error: health rpc probe failed: %v", err)}
	}
	if response.GetStatus() != health.HealthCheckResponse_SERVING {
		return answer{output: fmt.Sprintf("service unhealthy (responded with %q)", response.GetStatus())}
	}
	return answer{ok: true}
}
