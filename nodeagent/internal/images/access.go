package images

import (
	"context"
	"fmt"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// mayUse reports whether the pod may use an image that is on the machine. One that
// this agent has not pulled is everybody's, as on a kubelet
// (imagePullCredentialsVerificationPolicy NeverVerifyPreloadedImages); of the others
// the pod must have a credential that has opened it, or the image must have opened
// without any. Who may not, may try to pull it.
func (r *request) mayUse(ctx context.Context, id string) (bool, error) {
	if r.records == nil {
		return true, nil
	}
	if err := r.settleInterrupted(ctx); err != nil {
		return false, err
	}
	repo, err := repository(r.image)
	if err != nil {
		return false, err
	}
	opened, ours := r.records.of(id, r.image, repo)
	if !ours || opened.Anyone {
		return true, nil
	}
	if len(opened.Secrets) == 0 {
		return false, nil
	}
	keyring, err := r.credentials(ctx)
	if err != nil {
		return false, err
	}
	for _, c := range keyring.find(repo) {
		for _, h := range opened.Secrets {
			// The same credential in another secret; or another one in the same secret,
			// whose owner could open the image before.
			if c.hash() == h.Hash || c.holder().sameSecret(h) {
				r.noteOpened(ctx, id, access{Secrets: []holder{c.holder()}}, nil)
				return true, nil
			}
		}
	}
	return false, nil
}

// settleInterrupted deals with pulls that an earlier life of the agent did not see
// the end of: an image that came of one is this agent's, and nobody's yet.
func (p *Puller) settleInterrupted(ctx context.Context) error {
	for _, name := range p.records.interrupted() {
		image, err := p.status(ctx, name)
		if err != nil {
			return fmt.Errorf("see what came of an interrupted pull of image %q: %w", name, err)
		}
		if image != nil {
			repo, err := repository(name)
			if err != nil {
				return err
			}
			if err := p.records.add(image.Id, repo, access{}, namesOf(image)...); err != nil {
				return err
			}
		}
		if err := p.records.settled(name); err != nil {
			return err
		}
	}
	return nil
}

// noteOpened remembers who has opened the image. If that fails the next one has to
// show its credentials to the registry again, no more.
func (r *request) noteOpened(ctx context.Context, id string, opened access, names []string) {
	repo, err := repository(r.image)
	if err == nil {
		err = r.records.add(id, repo, opened, names...)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Access to an image is not remembered", "image", r.image)
	}
}

// namesOf are all names of an image.
func namesOf(image *runtimeapi.Image) []string {
	return slices.Concat(image.GetRepoTags(), image.GetRepoDigests())
}

// openedBy is the access that a pull with one of the pod's credentials has shown; nil
// is the pull without any.
func openedBy(with *credential, own []credential) access {
	if with == nil {
		return access{Anyone: true}
	}
	var opened access
	for _, c := range own {
		// By hash: the pull may have been another pod's, with the same credentials.
		if c.hash() == with.hash() {
			opened.Secrets = append(opened.Secrets, c.holder())
		}
	}
	return opened
}

// Forget drops what is remembered of images that are not on the machine any more.
// present are those that were at since, by id.
func (p *Puller) Forget(ctx context.Context, present map[string]bool, since time.Time) {
	if p.records == nil {
		return
	}
	if err := p.records.prune(present, since); err != nil {
		klog.FromContext(ctx).Error(err, "A removed image is not forgotten")
	}
}
