package shutdown

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pair are the two ends of a socket.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	ends := [2]*net.UnixConn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// join is a bus for two: it lets both in as a D-Bus server does (the protocol's
// "Authentication Protocol", EXTERNAL with descriptors), then hands on what one
// says, descriptors included, to the other. handedOn is called after descriptors.
func join(a, b *net.UnixConn, handedOn func()) {
	letIn := func(c *net.UnixConn) bool {
		in := bufio.NewReaderSize(oneByOne{c}, 16)
		if zero, err := in.ReadByte(); err != nil || zero != 0 {
			return false
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return false
			}
			answer := ""
			switch line = strings.TrimSpace(line); {
			case line == "BEGIN":
				return true
			case line == "NEGOTIATE_UNIX_FD":
				answer = "AGREE_UNIX_FD"
			case line == "AUTH":
				answer = "REJECTED EXTERNAL"
			case strings.HasPrefix(line, "AUTH EXTERNAL"):
				answer = "OK 0123456789abcdef0123456789abcdef"
			default:
				answer = "ERROR"
			}
			if _, err := fmt.Fprintf(c, "%s\r\n", answer); err != nil {
				return false
			}
		}
	}
	handOn := func(from, to *net.UnixConn) {
		defer func() { _, _ = from.Close(), to.Close() }()
		data, rights := make([]byte, 4096), make([]byte, 256)
		for {
			n, r, _, _, err := from.ReadMsgUnix(data, rights)
			if err != nil || n == 0 {
				return
			}
			if _, _, err := to.WriteMsgUnix(data[:n], rights[:r], nil); err != nil {
				return
			}
			if r > 0 {
				closeRights(rights[:r])
				handedOn()
			}
		}
	}
	go func() {
		if letIn(a) && letIn(b) {
			go handOn(a, b)
			handOn(b, a)
		}
	}()
}

// oneByOne reads a byte at a time: what comes after BEGIN is not the bus's.
type oneByOne struct{ *net.UnixConn }

func (o oneByOne) Read(p []byte) (int, error) { return o.UnixConn.Read(p[:1]) }

func closeRights(raw []byte) {
	messages, err := unix.ParseSocketControlMessage(raw)
	if err != nil {
		return
	}
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// system is systemd and the bus's own object, behind a real connection.
type system struct {
	t    *testing.T
	conn *dbus.Conn

	mu     sync.Mutex
	delays *prop.Properties
	// reloaded is what logind's delay becomes when it reads its configuration again.
	reloaded uint64
	locks    []*os.File // the ends that tell whether a lock is held
	given    []*os.File // the other ends, until they have been handed on
	handed   int
	taken    []string
	hangups  int
}

// start makes a connection between a new system and whoever dials, and returns his
// end of it.
func start(t *testing.T, delay, reloaded uint64) (*system, *net.UnixConn) {
	t.Helper()
	own, bus1 := pair(t)
	others, bus2 := pair(t)
	s := &system{t: t, reloaded: reloaded}
	join(bus1, bus2, s.handedOn)
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		conn, err := dbus.DialUnix(own)
		if err != nil || conn.Auth(nil) != nil {
			return
		}
		s.conn = conn
	}()
	t.Cleanup(func() { _ = s.conn.Close() })
	<-ready
	require.NotNil(t, s.conn)
	require.NoError(t, s.conn.Export(hello{}, "/org/freedesktop/DBus", "org.freedesktop.DBus"))
	require.NoError(t, s.conn.Export(s, logindPath, logindManager))
	require.NoError(t, s.conn.Export(s, systemdPath, systemdManager))
	var err error
	s.delays, err = prop.Export(s.conn, logindPath, prop.Map{logindManager: {"InhibitDelayMaxUSec": {Value: delay, Emit: prop.EmitFalse}}})
	require.NoError(t, err)
	return s, others
}

// hello answers what a bus is asked first.
type hello struct{}

func (hello) Hello() (string, *dbus.Error)   { return ":1.1", nil }
func (hello) AddMatch(string) *dbus.Error    { return nil }
func (hello) RemoveMatch(string) *dbus.Error { return nil }

// Inhibit gives a lock as logind does: a descriptor that is held until it is closed.
func (s *system) Inhibit(what, _, _, mode string) (dbus.UnixFD, *dbus.Error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	s.t.Cleanup(func() { _ = read.Close() })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks, s.given, s.taken = append(s.locks, read), append(s.given, write), append(s.taken, what+" "+mode)
	return dbus.UnixFD(write.Fd()), nil
}

func (s *system) handedOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.given {
		_ = f.Close()
	}
	s.handed += len(s.given)
	s.given = nil
}

// KillUnit has logind read its configuration again.
func (s *system) KillUnit(unit, who string, signal int32) *dbus.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if unit == "systemd-logind.service" && who == "all" && signal == 1 {
		s.hangups++
		s.delays.SetMust(logindManager, "InhibitDelayMaxUSec", s.reloaded)
	}
	return nil
}

// released is closed when the n-th lock, counted from 1, is let go.
func (s *system) released(n int) <-chan struct{} {
	s.mu.Lock()
	lock := s.locks[n-1]
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = lock.Read(make([]byte, 1)) // nobody writes: it ends when the last holder has closed
	}()
	return done
}

// held is how many locks have been handed on so far: what is said after that comes
// after the lock, as on a bus.
func (s *system) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed
}

// prepare emits PrepareForShutdown.
func (s *system) prepare(down bool) {
	require.NoError(s.t, s.conn.Emit(logindPath, logindManager+".PrepareForShutdown", down))
}

// dial makes a client's end a connection, as dbus.ConnectSystemBus does.
func dial(ctx context.Context, end *net.UnixConn) (*dbus.Conn, error) {
	conn, err := dbus.DialUnix(end, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth(nil); err != nil {
		return nil, err
	}
	return conn, conn.Hello()
}
