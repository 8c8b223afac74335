package cri_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	content "github.com/containerd/containerd/api/services/content/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// store is a content store with manifests of one layer each, named by the layer.
type store struct {
	content.UnimplementedContentServer
	manifests, coming []string
}

func (s *store) ListStatuses(context.Context, *content.ListStatusesRequest) (*content.ListStatusesResponse, error) {
	answer := &content.ListStatusesResponse{}
	for _, layer := range s.coming {
		answer.Statuses = append(answer.Statuses, &content.Status{Ref: "layer-" + layer, Offset: 10})
	}
	return answer, nil
}

func (s *store) List(q *content.ListContentRequest, stream content.Content_ListServer) error {
	answer := &content.ListContentResponse{}
	for _, layer := range s.manifests {
		if q.GetFilters()[0] != "digest=="+layer { // else it asks for the layer, which has not come
			answer.Info = append(answer.Info, &content.Info{
				Digest: layer, Labels: map[string]string{"containerd.io/distribution.source.registry.example": "other,team/app"},
			})
		}
	}
	return stream.Send(answer)
}

func (s *store) Read(q *content.ReadContentRequest, stream content.Content_ReadServer) error {
	return stream.Send(&content.ReadContentResponse{Data: fmt.Appendf(nil, `{"layers": [{"digest": %q, "size": 40}]}`, q.GetDigest())})
}

func TestPulled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store       *store // nil: the runtime is not containerd
		repository  string
		done, total int64
	}{
		"one":                   {&store{manifests: []string{"a", "b"}, coming: []string{"a"}}, "registry.example:5000/team/app", 10, 40},
		"two of one repository": {&store{manifests: []string{"a", "b"}, coming: []string{"a", "b"}}, "registry.example:5000/team/app", 0, 0},
		"of another repository": {&store{manifests: []string{"a", "b"}, coming: []string{"a"}}, "registry.example:5000/team/ap", 0, 0},
		"none":                  {&store{manifests: []string{"a", "b"}}, "registry.example:5000/team/app", 0, 0},
		"another runtime":       {nil, "registry.example:5000/team/app", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			require.NoError(t, err)
			server := grpc.NewServer()
			if c.store != nil {
				content.RegisterContentServer(server, c.store)
			}
			go func() { _ = server.Serve(l) }()
			t.Cleanup(server.Stop)
			asked, err := cri.NewContent("unix://" + socket)
			require.NoError(t, err)
			t.Cleanup(func() { _ = asked.Close() })
			done, total, err := asked.Pulled(t.Context(), c.repository)
			require.Equal(t, c.done, done)
			require.Equal(t, c.total, total)
			if c.total == 0 {
				require.ErrorIs(t, err, cri.ErrUnknown)
			} else {
				require.NoError(t, err)
			}
		})
	}
}
