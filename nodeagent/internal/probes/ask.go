package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	remote "k8s.io/cri-client/pkg"
	utilexec "k8s.io/utils/exec"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// most is how much of an answer is kept, in bytes.
const most = 10 << 10

// Execer runs a command in a container, as CRI has it.
type Execer interface {
	ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (stdout, stderr []byte, err error)
}

// answer is what a probe has found out.
type answer struct {
	ok bool
	// warning says that ok is so with a reservation, which output tells.
	warning bool
	output  string
}

// ask makes the probe once. An error says that nothing could be found out.
func (p *probe) ask(ctx context.Context) (answer, error) {
	timeout := max(seconds(p.spec.TimeoutSeconds), time.Second)
	switch c := p.container; {
	case p.spec.Exec != nil:
		return askExec(ctx, p.set.o.Runtime, c.ID, crispec.ExpandStatic(p.spec.Exec.Command, c.Spec), timeout)
	case p.spec.HTTPGet != nil:
		request, err := Request(ctx, p.spec.HTTPGet, c.Spec, c.Address, "kube-probe")
		if err != nil {
			return answer{}, err
		}
		return askHTTP(request, timeout), nil
	case p.spec.TCPSocket != nil:
		port, err := number(p.spec.TCPSocket.Port, c.Spec)
		if err != nil {
			return answer{}, err
		}
		return askTCP(ctx, address(p.spec.TCPSocket.Host, c.Address, port), timeout), nil
	case p.spec.GRPC != nil:
		service := ""
		if p.spec.GRPC.Service != nil {
			service = *p.spec.GRPC.Service
		}
		return askGRPC(ctx, address("", c.Address, int(p.spec.GRPC.Port)), service, timeout), nil
	default:
		return answer{}, errors.New("the probe has no action that this node knows")
	}
}

func address(host, pod string, port int) string {
	if host == "" {
		host = pod
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// number is the port that a probe or hook names, a name being one of the container's.
func number(port intstr.IntOrString, c *corev1.Container) (int, error) {
	n := port.IntValue() // of a text too, 0 if that is no number
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q is not a port of container %q", port.String(), c.Name)
	}
	return n, nil
}

func askExec(ctx context.Context, runtime Execer, id string, command []string, timeout time.Duration) (answer, error) {
	stdout, stderr, err := runtime.ExecSync(ctx, id, command, timeout)
	output := strings.TrimSpace(cut(string(stdout) + string(stderr)))
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return answer{ok: true, output: output}, nil
	case errors.As(err, &exit):
		return answer{ok: exit.ExitStatus() == 0, output: output}, nil
	case errors.Is(err, remote.ErrCommandTimedOut):
		return answer{output: err.Error()}, nil
	default:
		return answer{}, err
	}
}

func cut(text string) string {
	if len(text) > most {
		return text[:most]
	}
	return text
}

func askTCP(ctx context.Context, address string, timeout time.Duration) answer {
	d := dialer()
	d.Timeout = timeout
	connection, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return answer{output: err.Error()}
	}
	_ = connection.Close()
	return answer{ok: true}
}

// dialer opens connections that leave no socket in TIME_WAIT for a minute: a machine
// full of pods makes many a second.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
}
