package kubeletapi

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the port, also at an address that the machine lacks at the moment: one that
// another machine has taken over, or that DHCP has changed, must not keep the pods from
// being looked after. Once the machine has it again, it is answered there.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	l, err := (&net.ListenConfig{Control: freeBind}).Listen(ctx, "tcp", s.o.Address)
	if err != nil {
		return nil, fmt.Errorf("open the kubelet API: %w (is a kubelet or another agent running on this machine?)", err)
	}
	return l, nil
}

// freeBind lets a socket be bound to an address of nobody's. Where the kernel can't, the
// binding itself tells.
func freeBind(network, _ string, socket syscall.RawConn) error {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if network == "tcp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	return socket.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, 1) })
}
