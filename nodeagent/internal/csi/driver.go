package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// answerWithin is how long a driver may take for one call, the kubelet's csiTimeout.
const answerWithin = 2 * time.Minute

// driver is one that is called. Each call has a connection of its own, as a kubelet's
// has: a driver that was started again answers at once.
type driver struct {
	name, endpoint string
	// within defaults to answerWithin.
	within time.Duration
}

// callError is a call that the driver did not do.
type callError struct {
	text string
	code codes.Code
}

func (e *callError) Error() string { return e.text }

// final reports whether the call is over and came to nothing. Of any other error it
// is not known what the driver still does, and what it has done
// (pkg/volume/csi, isFinalError).
func final(err error) bool {
	var failed *callError
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.code {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}

// call makes one call. What the driver says is told; a secret in it is not.
func (d driver) call(ctx context.Context, method string, secrets map[string]string, do func(context.Context, csipb.NodeClient) error) error {
	within := d.within
	if within == 0 {
		within = answerWithin
	}
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(d.endpoint, "unix://"),
		grpc.WithAuthority("localhost"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to CSI driver %s at %s: %w", d.name, d.endpoint, err)
	}
	defer func() { _ = conn.Close() }()
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err = do(limited, csipb.NewNodeClient(conn))
	if err == nil {
		return nil
	}
	said := status.Convert(err)
	// A driver that has been told the deadline may say that it is over a moment before ctx
	// does; whoever gave the time is to see that it has run out.
	if ends, ok := ctx.Deadline(); ok && said.Code() == codes.DeadlineExceeded && time.Until(ends) < time.Second {
		<-ctx.Done()
	}
	text := fmt.Sprintf("CSI driver %s: %s: %s: %s", d.name, method, said.Code(), redact(said.Message(), secrets))
	switch {
	case said.Code() == codes.DeadlineExceeded && ctx.Err() == nil:
		text = fmt.Sprintf("CSI driver %s did not answer %s within %s; it is asked again", d.name, method, within)
	case said.Code() == codes.Unavailable:
		text = fmt.Sprintf("CSI driver %s does not answer at %s (is it running?): %s: %s", d.name, d.endpoint, method, redact(said.Message(), secrets))
	}
	return &callError{text: text, code: said.Code()}
}

// shortest is how long what is hidden must be: a value of a letter or two is in every
// text.
const shortest = 4

// redact hides the values of secrets in what a driver says, and each line of those that
// have several, as a private key has: drivers quote one alone.
func redact(text string, secrets map[string]string) string {
	var forms []string
	for value := range maps.Values(secrets) {
		forms = append(forms, value)
		for line := range strings.Lines(value) {
			forms = append(forms, strings.TrimSpace(line))
		}
	}
	// The longest first: one may be part of another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	for _, form := range forms {
		if len(form) >= shortest {
			text = strings.ReplaceAll(text, form, "…")
		}
	}
	return text
}

// capabilities are what a driver can do on a node.
type capabilities map[csipb.NodeServiceCapability_RPC_Type]bool

func (d driver) capabilities(ctx context.Context) (capabilities, error) {
	can := capabilities{}
	return can, d.call(ctx, "NodeGetCapabilities", nil, func(ctx context.Context, node csipb.NodeClient) error {
		answer, err := node.NodeGetCapabilities(ctx, &csipb.NodeGetCapabilitiesRequest{})
		for _, c := range answer.GetCapabilities() {
			can[c.GetRpc().GetType()] = true
		}
		return err
	})
}
