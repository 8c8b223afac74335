package story

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The bucket that the vendor's Pod has mounted, on a real S3 gateway on the machine's
// own loopback: no cloud is needed to see it.
const (
	gatewayModule  = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
	gatewayName    = "s3-gateway"
	gatewayAddress = "127.0.0.1:7480"
	bucketName     = "oss-demo"
)

// bucketKeys are the gateway's, made anew with each story.
type bucketKeys struct{ id, secret string }

// bucketObject is where the gateway keeps an object of the bucket.
func (s *Story) bucketObject(name string) string {
	return filepath.Join(s.gatewayDir(), "buckets", bucketName, name)
}

func (s *Story) gatewayDir() string { return filepath.Join(s.Dir, "s3") }

// StartGateway starts the gateway, with the bucket in it.
func (s *Story) StartGateway(ctx context.Context) error {
	if !exists(s.bin("versitygw")) {
		fmt.Fprintf(s.Out, "   go install %s\n", gatewayModule)
		if _, err := s.quiet(ctx, "env", "GOBIN="+s.bin(""), "GOFLAGS=", "go", "install", gatewayModule); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.bucketObject(""), 0o700); err != nil {
		return err
	}
	s.keys = bucketKeys{id: "AKID" + rand.Text(), secret: rand.Text()}
	keys := filepath.Join(s.gatewayDir(), "keys")
	if err := os.WriteFile(keys, []byte("ROOT_ACCESS_KEY="+s.keys.id+"\nROOT_SECRET_KEY="+s.keys.secret+"\n"), 0o600); err != nil {
		return err
	}
	// The keys come from a file: nobody sees them in a list of processes.
	_, err := s.devcluster(ctx, true, "start", "--name", gatewayName, machine, "--",
		"sh", "-c", `set -a; . "$0"; exec "$@"`, keys,
		s.bin("versitygw"), "--port", gatewayAddress, "--quiet", "posix", filepath.Dir(s.bucketObject("")))
	return err
}

// fillBucket fills the keys and the endpoint into the vendor's volume.
func (s *Story) fillBucket(text string) string {
	return strings.NewReplacer(
		"${akId}", s.keys.id, "${akSecret}", s.keys.secret, "${bucket}", bucketName, "${endpoint}", "http://"+gatewayAddress,
	).Replace(text)
}

// ShowBucket writes in the pod what is read in the bucket, and the other way round.
func (s *Story) ShowBucket(ctx context.Context) error {
	if _, err := s.typed(ctx, "kubectl", "exec", "ray-gpu", "--", "sh", "-c", "echo written in the pod > /oss-data/from-pod"); err != nil {
		return err
	}
	object, err := os.ReadFile(s.bucketObject("from-pod"))
	if err != nil {
		return fmt.Errorf("what the pod wrote is not in the bucket: %w", err)
	}
	fmt.Fprintf(s.Out, "   object from-pod in bucket %s: %s", bucketName, object)
	if err := os.WriteFile(s.bucketObject("from-bucket"), []byte("put into the bucket\n"), 0o600); err != nil {
		return err
	}
	out, err := s.typed(ctx, "kubectl", "exec", "ray-gpu", "--", "cat", "/oss-data/from-bucket")
	if err == nil && out != "put into the bucket\n" {
		return fmt.Errorf("the pod read %q in the bucket", out)
	}
	return err
}
