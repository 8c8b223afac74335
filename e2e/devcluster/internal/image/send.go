package image

import (
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Parse reads an image's name as a runtime would.
func Parse(ref string) (name.Tag, error) {
	tag, err := name.NewTag(ref, name.WithDefaultRegistry("docker.io"), name.WithDefaultTag("latest"), name.Insecure)
	if err != nil {
		return name.Tag{}, fmt.Errorf("%q is no image name: %w", ref, err)
	}
	return tag, nil
}

// Save writes an archive that containerd imports under the image's name.
func Save(file string, tag name.Tag, img v1.Image) error {
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		return fmt.Errorf("writing the image archive %s: %w", file, err)
	}
	return nil
}

// Open reads an archive as docker and this program write it. The tag is needed
// only where the archive holds several images.
func Open(file string) (v1.Image, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("reading the image archive: %w", err)
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the image archive %s: %w: it has to be in the format of `docker save`, with one image in it", file, err)
	}
	return img, nil
}

// Push sends the image to a registry that wants a password.
func Push(tag name.Tag, img v1.Image, username, password string) error {
	auth := &authn.Basic{Username: username, Password: password}
	if err := remote.Write(tag, img, remote.WithAuth(auth)); err != nil {
		return fmt.Errorf("pushing %s: %w", tag, err)
	}
	return nil
}
