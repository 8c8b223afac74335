package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	content "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ErrUnknown says that the runtime does not tell how far a pull is: it is not
// containerd, it asks the registry still, or it pulls several images of the repository.
var ErrUnknown = errors.New("the runtime does not tell")

// containerd's namespace of CRI's images, and its labels of a blob: where it came from
// (then .HOST), and what it must be kept for (then .l.N for each layer of a manifest).
const (
	containerdNamespace = "k8s.io"
	labelSource         = "containerd.io/distribution.source."
	labelFirstLayer     = "containerd.io/gc.ref.content.l.0"
)

// mostManifest bounds what is read of a manifest, in bytes.
const mostManifest = 4 << 20

// Content asks containerd's content store, at CRI's socket: CRI has no word for the
// progress of a pull.
type Content struct {
	conn   *grpc.ClientConn
	client content.ContentClient
}

// NewContent does not connect before it is asked. endpoint is an address of gRPC.
func NewContent(endpoint string) (*Content, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("make a client of the content store at %q: %w", endpoint, err)
	}
	return &Content{conn: conn, client: content.NewContentClient(conn)}, nil
}

// Close ends the connection.
func (c *Content) Close() error { return c.conn.Close() }

// Pulled returns how many bytes of the layers of the image that is being pulled from
// the repository (HOST/PATH) are on the machine, and of how many; ErrUnknown where the
// runtime does not tell.
func (c *Content) Pulled(ctx context.Context, repository string) (done, total int64, err error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", containerdNamespace)
	coming, err := c.client.ListStatuses(ctx, &content.ListStatusesRequest{})
	if status.Code(err) == codes.Unimplemented {
		return 0, 0, ErrUnknown
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask what is being pulled: %w", err)
	}
	come := map[string]int64{} // bytes by digest
	for _, s := range coming.GetStatuses() {
		// REF is KIND-DIGEST (containerd's core/remotes.MakeRefKey).
		if _, digest, ok := strings.Cut(s.GetRef(), "-"); ok {
			come[digest] = s.GetOffset()
		}
	}
	layers, err := c.pulling(ctx, repository, come)
	if err != nil {
		return 0, 0, err
	}
	var filters []string
	for _, l := range layers {
		filters = append(filters, "digest=="+l.Digest)
	}
	there, err := c.list(ctx, filters...)
	if err != nil {
		return 0, 0, err
	}
	for _, blob := range there {
		come[blob.GetDigest()] = blob.GetSize()
	}
	for _, l := range layers {
		done, total = done+come[l.Digest], total+l.Size
	}
	return done, total, nil
}

// layer is what a manifest says of one.
type layer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// pulling are the layers of the repository's one manifest of which a layer is coming.
func (c *Content) pulling(ctx context.Context, repository string, coming map[string]int64) ([]layer, error) {
	host, path, _ := strings.Cut(repository, "/")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name // the label has no port
	}
	manifests, err := c.list(ctx, fmt.Sprintf("labels.%q,labels.%q", labelSource+host, labelFirstLayer))
	if err != nil {
		return nil, err
	}
	var found []layer
	for _, m := range manifests {
		if !slices.Contains(strings.Split(m.GetLabels()[labelSource+host], ","), path) || m.GetSize() > mostManifest {
			continue
		}
		layers, err := c.layers(ctx, m.GetDigest())
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(layers, func(l layer) bool { _, ok := coming[l.Digest]; return ok }) {
			continue
		}
		if found != nil {
			return nil, ErrUnknown
		}
		found = layers
	}
	if found == nil {
		return nil, ErrUnknown
	}
	return found, nil
}

func (c *Content) layers(ctx context.Context, manifest string) ([]layer, error) {
	stream, err := c.client.Read(ctx, &content.ReadContentRequest{Digest: manifest})
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", manifest, err)
	}
	var raw bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", manifest, err)
		}
		raw.Write(part.GetData())
	}
	var m struct{ Layers []layer }
	if err := json.Unmarshal(raw.Bytes(), &m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", manifest, err)
	}
	return m.Layers, nil
}

// list returns the blobs that one of the filters lets through.
func (c *Content) list(ctx context.Context, filters ...string) ([]*content.Info, error) {
	stream, err := c.client.List(ctx, &content.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list the content store: %w", err)
	}
	var all []*content.Info
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the content store: %w", err)
		}
		all = append(all, part.GetInfo()...)
	}
}
