package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// holder is a pull secret that has opened an image. Of the credential in it only a
// hash is kept.
type holder struct {
	UID       types.UID `json:"uid"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Hash      string    `json:"hash"`
}

// access is who has shown that a repository opens for him.
type access struct {
	// Anyone: it opened for nobody in particular.
	Anyone  bool     `json:"anyone,omitempty"`
	Secrets []holder `json:"secrets,omitempty"`
}

// pulledImage is kept of each image that this agent has pulled; of one that was
// there before there is none.
type pulledImage struct {
	// Image is its id in the runtime.
	Image string `json:"image"`
	// Access by full name without tag and digest: another registry's copy of the
	// same image asks for other credentials.
	Access map[string]access `json:"access,omitempty"`
	// Changed is when it was written last.
	Changed time.Time `json:"changed"`
}

// records remember across restarts of the agent with whose credentials images were
// pulled: a file of each image and, while a pull is under way, one of its name. That
// is KEP-2535 (pkg/kubelet/images/pullmanager), in small.
type records struct {
	dir string
	now func() time.Time

	mu   sync.Mutex
	byID map[string]pulledImage
	// broken are files that can't be read: of their images it is only known that they
	// were pulled.
	broken map[string]bool
	// pulling counts the pulls of a name; left are names that an earlier life of the
	// agent was pulling when it ended.
	pulling map[string]int
	left    map[string]bool
}

const (
	recordSuffix  = ".json"
	pullingSuffix = ".pulling"
)

// openRecords reads the folder.
func openRecords(dir string, now func() time.Time) (*records, error) {
	r := &records{dir: dir, now: now, byID: map[string]pulledImage{}, broken: map[string]bool{}, pulling: map[string]int{}, left: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of pulled images: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of pulled images: %w", err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read what is known of pulled images: %w", err)
		}
		switch {
		case strings.HasSuffix(e.Name(), recordSuffix):
			var known pulledImage
			if err := json.Unmarshal(raw, &known); err != nil || r.file(known.Image, recordSuffix) != filepath.Join(dir, e.Name()) {
				r.broken[filepath.Join(dir, e.Name())] = true
				continue
			}
			r.byID[known.Image] = known
		case strings.HasSuffix(e.Name(), pullingSuffix):
			r.left[string(raw)] = true
		}
	}
	return r, nil
}

// begin notes that the image is being pulled: the runtime may have it before it is
// written whose credentials brought it.
func (r *records) begin(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling[name] == 0 && !r.left[name] {
		// Not synced to the disk: it has to outlive the agent, and that alone.
		if err := os.WriteFile(r.file(name, pullingSuffix), []byte(name), 0o600); err != nil {
			return fmt.Errorf("note the pull of image %q: %w", name, err)
		}
	}
	r.pulling[name]++
	return nil
}

// end is begin's other half, whatever came of the pull.
func (r *records) end(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling[name]--; r.pulling[name] > 0 {
		return nil
	}
	delete(r.pulling, name)
	if r.left[name] {
		return nil // still not known what came of the first one
	}
	return r.remove(name, pullingSuffix)
}

// add notes who has opened the image's repository; with no one it is noted that
// this agent has pulled the image. What is known already is not written again. names
// are what the runtime calls the image: one that this agent has not pulled it by was
// there before, and stays everybody's.
func (r *records) add(id, repo string, opened access, names ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, exists := r.byID[id]
	if !exists && !r.broken[r.file(id, recordSuffix)] {
		known.Access = r.before(repo, names)
	}
	now := known.Access[repo]
	fresh := !exists || opened.Anyone && !now.Anyone
	now.Anyone = now.Anyone || opened.Anyone
	now.Secrets = slices.Clone(now.Secrets)
	for _, h := range opened.Secrets {
		if slices.Contains(now.Secrets, h) {
			continue
		}
		fresh = true
		// A secret that was changed has one credential, the new one.
		now.Secrets = slices.DeleteFunc(now.Secrets, func(o holder) bool { return o.sameSecret(h) })
		now.Secrets = append(now.Secrets, h)
	}
	if !fresh {
		return nil
	}
	changed := pulledImage{Image: id, Access: map[string]access{}, Changed: r.now()}
	maps.Copy(changed.Access, known.Access)
	if now.Anyone || len(now.Secrets) > 0 {
		changed.Access[repo] = now
	}
	raw, err := json.Marshal(changed)
	if err != nil {
		return fmt.Errorf("encode what is known of image %q: %w", id, err)
	}
	if err := statefile.Write(r.file(id, recordSuffix), raw, 0o600); err != nil {
		return fmt.Errorf("note whose credentials opened image %q: %w", id, err)
	}
	r.byID[id] = changed
	delete(r.broken, r.file(id, recordSuffix))
	return nil
}

// before is the access to the repositories that an image had before this agent pulled
// it from repo, by all its names. What is being pulled just now is none of them.
func (r *records) before(repo string, names []string) map[string]access {
	pulled := map[string]bool{repo: true}
	for _, under := range []iter.Seq[string]{maps.Keys(r.pulling), maps.Keys(r.left)} {
		for name := range under {
			if other, err := repository(name); err == nil {
				pulled[other] = true
			}
		}
	}
	found := map[string]access{}
	for _, name := range names {
		if other, err := repository(name); err == nil && !pulled[other] {
			found[other] = access{Anyone: true}
		}
	}
	return found
}

func (h holder) sameSecret(o holder) bool {
	return h.UID == o.UID && h.Namespace == o.Namespace && h.Name == o.Name
}

// of returns who has opened the image, and whether this agent has pulled it at all,
// or is pulling it under that name.
func (r *records) of(id, name, repository string) (opened access, ours bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ours := r.byID[id]
	return known.Access[repository], ours || r.pulling[name] > 0 || r.left[name] || r.broken[r.file(id, recordSuffix)]
}

// interrupted are the names whose pulls an earlier life of the agent did not end.
func (r *records) interrupted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.left {
		names = append(names, name)
	}
	return names
}

// settled forgets an interrupted pull: what came of it is known.
func (r *records) settled(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling[name] == 0 {
		if err := r.remove(name, pullingSuffix); err != nil {
			return err
		}
	}
	delete(r.left, name)
	return nil
}

// prune forgets the images that are not present, but for what was written since the
// list of those was begun.
func (r *records) prune(present map[string]bool, since time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for id, known := range r.byID {
		if present[id] || !known.Changed.Before(since) {
			continue
		}
		if err := r.remove(id, recordSuffix); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(r.byID, id)
	}
	return errors.Join(errs...)
}

// file is named by a hash: ids and names have slashes and colons in them.
func (r *records) file(of, suffix string) string {
	sum := sha256.Sum256([]byte(of))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:])+suffix)
}

func (r *records) remove(of, suffix string) error {
	if err := statefile.Remove(r.file(of, suffix)); err != nil {
		return fmt.Errorf("forget image %q: %w", of, err)
	}
	return nil
}
