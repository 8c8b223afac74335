// Package podfiles keeps what is made on the machine for one pod and mounted into its
// containers besides volumes: termination messages, and its host names.
package podfiles

import (
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
)

// Files of pods, in one folder for each below Dir.
type Files struct {
	Dir string
	// HostsFile is the machine's own host names; it need not exist.
	HostsFile string
}

// Folder holds all that is made for one pod.
func (f Files) Folder(uid types.UID) string { return filepath.Join(f.Dir, string(uid)) }
