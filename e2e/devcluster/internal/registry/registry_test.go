package registry

import (
	"net/http/httptest"
	"strings"
	"testing"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/ainode/ainode/e2e/devcluster/internal/image"
)

func TestOnlyTheRightPasswordPushes(t *testing.T) {
	server := httptest.NewServer(Protect(gcr.New(), Username, "secret"))
	defer server.Close()
	img, err := image.Build(image.Spec{Files: []image.File{{Target: "/x", Content: "y", Mode: 0o644}}})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := image.Parse(strings.TrimPrefix(server.URL, "http://") + "/a:b")
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Push(tag, img, Username, "secret"); err != nil {
		t.Errorf("with the password: %v", err)
	}
	for user, password := range map[string]string{Username: "wrong", "other": "secret", "": ""} {
		if err := image.Push(tag, img, user, password); err == nil {
			t.Errorf("%q with %q could push", user, password)
		}
	}
}
