// Package registry is a small image registry that asks for a password.
package registry

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

const (
	// Name is the daemon's, Command the hidden subcommand that serves.
	Name    = "registry"
	Command = "registry"
	// Username is the only one it knows.
	Username = "devcluster"
)

// Host is the registry's address for everyone, as it stands in an image's name.
func Host(plan subnet.Plan) string { return plan.Node() + ":5000" }

// PasswordFile holds the password alone, readable by its owner alone.
func PasswordFile(l layout.Layout) string { return l.Path("registry", "auth") }

// Password reads it.
func Password(l layout.Layout) (string, error) {
	data, err := os.ReadFile(PasswordFile(l))
	if err != nil {
		return "", fmt.Errorf("reading the registry's password: %w", err)
	}
	return string(data), nil
}

// Start makes a password if there is none and runs the daemon.
func Start(l layout.Layout, plan subnet.Plan) error {
	if err := os.MkdirAll(l.Path("registry"), 0o700); err != nil {
		return fmt.Errorf("preparing the registry: %w", err)
	}
	if !layout.Exists(PasswordFile(l)) {
		if err := os.WriteFile(PasswordFile(l), []byte(rand.Text()), 0o600); err != nil {
			return fmt.Errorf("writing the registry's password: %w", err)
		}
	}
	_, err := daemon.Start(l, daemon.Spec{
		Name: Name, Room: layout.NodeName,
		Argv: []string{l.Program("devcluster"), Command, "--dir", l.Dir, "--listen", Host(plan)},
		Env:  daemon.Environment(l),
	})
	return err
}

// Serve answers until it is ended.
func Serve(l layout.Layout, listen string) error {
	password, err := Password(l)
	if err != nil {
		return err
	}
	blobs := l.Path("registry", "blobs")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		return fmt.Errorf("preparing the registry: %w", err)
	}
	handler := gcr.New(gcr.WithBlobHandler(gcr.NewDiskBlobHandler(blobs)), gcr.Logger(log.New(os.Stderr, "", log.LstdFlags)))
	server := &http.Server{Addr: listen, Handler: Protect(handler, Username, password), ReadHeaderTimeout: 10 * time.Second}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the registry: %w", err)
	}
	return nil
}

// Protect lets only requests with the right name and password through.
func Protect(next http.Handler, username, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		sameUser := subtle.ConstantTimeCompare([]byte(user), []byte(username))
		samePass := subtle.ConstantTimeCompare([]byte(pass), []byte(password))
		if sameUser&samePass == 1 {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="devcluster"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": "this registry wants a username and a password"}},
		})
	})
}

// WaitReady waits until the registry takes connections.
func WaitReady(ctx context.Context, l layout.Layout, plan subnet.Plan) error {
	dialer := net.Dialer{Timeout: time.Second}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", Host(plan))
		if err == nil {
			return conn.Close()
		}
		if err := daemon.Check(l, Name); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the registry: %w; %s", err, daemon.Tail(l, Name))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
