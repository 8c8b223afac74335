// Package pluginregistration finds plugins that show a socket in a folder, and
// registers them by the kubelet's protocol (k8s.io/kubelet/pkg/apis/pluginregistration,
// pkg/kubelet/pluginmanager): it asks who they are, hands them over, and tells them
// what came of it.
//
// What lies in the folder is the truth. The kernel tells when to look at it, and each
// minute it is looked at all the same.
package pluginregistration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// rescan is how often the folder is looked at though nothing was heard of it.
	rescan = time.Minute
	// A plugin that can't be registered is tried again as often as the kubelet does
	// (goroutinemap's exponential back-off).
	retryFirst = 500 * time.Millisecond
	retryLast  = 2*time.Minute + 2*time.Second
)

// Plugin is one that has said who it is.
type Plugin struct {
	// Type is CSIPlugin, DevicePlugin or DRAPlugin.
	Type, Name string
	// Socket is where it registers, Endpoint where it serves.
	Socket, Endpoint string
	// Versions of its own API that it serves.
	Versions []string
}

// Handler takes the plugins of one type.
type Handler interface {
	// Register takes a plugin, or says why not: the plugin is told so, and tried again.
	Register(ctx context.Context, p Plugin) error
	// Deregister drops one that Register has taken. It must not block.
	Deregister(p Plugin)
}

// Watcher watches one folder.
type Watcher struct {
	// Dir and the folders below it are where plugins register. It is made if it is not
	// there.
	Dir string
	// Handlers by type of plugin.
	Handlers map[string]Handler
	// Clock defaults to the real one.
	Clock clock.WithTicker

	known map[string]*socket // by path; Run's goroutine only
}

// socket is one that has been seen. Another one at the same path is another one.
type socket struct {
	path string
	id   identity
	stop context.CancelFunc
	done chan struct{}
}

// identity tells a socket from the next one that was made at its path: an inode alone
// may be used again at once.
type identity struct {
	device, inode uint64
	changed       unix.Timespec
}

// Run registers plugins until ctx ends. Then all that were taken are dropped.
func (w *Watcher) Run(ctx context.Context) error {
	if w.Clock == nil {
		w.Clock = clock.RealClock{}
	}
	w.known = map[string]*socket{}
	if err := os.MkdirAll(w.Dir, 0o755); err != nil { // plugins that are not root's may register
		return fmt.Errorf("make the folder that plugins register in: %w", err)
	}
	watch, changes, lost := func(string) error { return nil }, make(<-chan fsnotify.Event), make(<-chan error)
	if events, err := fsnotify.NewWatcher(); err == nil {
		defer func() { _ = events.Close() }()
		watch, changes, lost = events.Add, events.Events, events.Errors
	} else { // the kernel gives a user some of them only
		klog.FromContext(ctx).Error(err, "Plugins are looked for once a minute only", "folder", w.Dir)
	}
	ticker := w.Clock.NewTicker(rescan)
	defer ticker.Stop()
	defer func() {
		for _, s := range w.known {
			w.forget(s)
		}
	}()
	for {
		if err := w.look(ctx, watch); err != nil {
			klog.FromContext(ctx).Error(err, "The folder that plugins register in can't be read", "folder", w.Dir)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		case <-changes:
		case err := <-lost: // more than the kernel keeps, mostly
			klog.FromContext(ctx).V(1).Info("Looking for plugins anew", "cause", err)
		}
	}
}

// look compares the folder with what is known.
func (w *Watcher) look(ctx context.Context, watch func(folder string) error) error {
	// First to be told, then to look: what comes in between is seen twice.
	folders, err := walk(w.Dir, fs.FileMode.IsDir)
	for _, folder := range folders {
		err = errors.Join(err, watch(folder)) // to be told twice is no more
	}
	paths, walkErr := Sockets(w.Dir)
	err = errors.Join(err, walkErr)
	present := map[string]identity{}
	for _, path := range paths {
		if id, ok := identify(path); ok {
			present[path] = id
		}
	}
	for path, s := range w.known {
		if id, ok := present[path]; !ok || id != s.id {
			w.forget(s)
			delete(w.known, path)
		}
	}
	for path, id := range present {
		if w.known[path] == nil {
			w.known[path] = w.serve(ctx, path, id)
		}
	}
	return err
}

// Sockets are those in the folder and the folders below, but for hidden ones.
func Sockets(dir string) ([]string, error) {
	return walk(dir, func(mode fs.FileMode) bool { return mode&fs.ModeSocket != 0 })
}

// walk are the paths of a kind at and below dir.
func walk(dir string, is func(fs.FileMode) bool) (paths []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case is(d.Type()):
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}

func identify(path string) (identity, bool) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return identity{}, false
	}
	return identity{stat.Dev, stat.Ino, stat.Ctim}, true
}

// serve registers the plugin, for as long as it takes, and drops it when it is told to
// stop.
func (w *Watcher) serve(ctx context.Context, path string, id identity) *socket {
	ctx, stop := context.WithCancel(klog.NewContext(ctx, klog.FromContext(ctx).WithValues("socket", path)))
	s := &socket{path: path, id: id, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for wait := retryFirst; ; wait = min(2*wait, retryLast) {
			drop, err := w.register(ctx, path)
			if err == nil {
				<-ctx.Done()
				drop()
				return
			}
			if ctx.Err() != nil {
				return
			}
			klog.FromContext(ctx).Info("A plugin is not registered yet", "again", wait, "cause", err)
			select {
			case <-ctx.Done():
				return
			case <-w.Clock.After(wait):
			}
		}
	}()
	return s
}

// forget drops a socket that is gone, and waits until its plugin is.
func (w *Watcher) forget(s *socket) {
	s.stop()
	<-s.done
}
