package shutdown

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names of systemd's interfaces, org.freedesktop.login1(5) and systemd1(5).
const (
	logindName     = "org.freedesktop.login1"
	logindPath     = dbus.ObjectPath("/org/freedesktop/login1")
	logindManager  = "org.freedesktop.login1.Manager"
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	systemdManager = "org.freedesktop.systemd1.Manager"
)

// logind is systemd's manager of shutdowns.
type logind struct{ conn *dbus.Conn }

func (l logind) object() dbus.BusObject { return l.conn.Object(logindName, logindPath) }

// delay is how long logind lets a shutdown wait for those who hold locks.
func (l logind) delay() (time.Duration, error) {
	value, err := l.object().GetProperty(logindManager + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask logind how long it delays a shutdown: %w", err)
	}
	microseconds, ok := value.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("ask logind how long it delays a shutdown: it answers with %s", value.Signature())
	}
	return time.Duration(microseconds) * time.Microsecond, nil
}

// inhibit takes a lock that delays a shutdown until it is closed.
func (l logind) inhibit(ctx context.Context) (*os.File, error) {
	var fd dbus.UnixFD
	err := l.object().CallWithContext(ctx, logindManager+".Inhibit", 0,
		"shutdown", "ainode-agent", "pods are to end within their grace", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("take logind's lock: %w", err)
	}
	return os.NewFile(uintptr(fd), "logind's lock"), nil
}

// watch returns the arguments of PrepareForShutdown: whether the machine goes down,
// or stays up after all. The channel is closed with the connection.
func (l logind) watch(ctx context.Context) (<-chan bool, error) {
	err := l.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(logindManager),
		dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(logindPath))
	if err != nil {
		return nil, fmt.Errorf("follow logind's signals: %w", err)
	}
	signals, goesDown := make(chan *dbus.Signal, 8), make(chan bool)
	l.conn.Signal(signals)
	go func() {
		defer close(goesDown)
		for signal := range signals {
			if signal.Name != logindManager+".PrepareForShutdown" || len(signal.Body) == 0 {
				continue
			}
			if down, ok := signal.Body[0].(bool); ok {
				select {
				case goesDown <- down:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return goesDown, nil
}

// dropIn is the file that makes logind wait, in its folder of configuration.
const dropIn = "99-ainode-agent.conf"

// extend makes logind wait for that long from now on, as the kubelet does.
func (l logind) extend(ctx context.Context, period time.Duration, folder string) error {
	text := fmt.Sprintf("# Written by ainode-agent: pods are to end within their grace.\n[Login]\nInhibitDelayMaxSec=%.0f\n", period.Seconds())
	if err := os.MkdirAll(folder, 0o755); err != nil { // systemd's, for all to read
		return fmt.Errorf("make logind wait longer: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, dropIn), []byte(text), 0o644); err != nil { // systemd's, for all to read
		return fmt.Errorf("make logind wait longer: %w", err)
	}
	const hangup = int32(1) // on which it reads its configuration again
	err := l.conn.Object(systemdName, systemdPath).CallWithContext(ctx, systemdManager+".KillUnit", 0, "systemd-logind.service", "all", hangup).Err
	if err != nil {
		return fmt.Errorf("make logind read its configuration: %w", err)
	}
	return nil
}
