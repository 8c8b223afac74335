package config

import "path/filepath"

// LeaseDir holds the addresses that pods have. Not in State: leases end with a boot,
// like the network namespaces that have them.
const LeaseDir = "/run/ainode-agent/addresses"

// PluginsDir is where plugins register, in a kubelet's folder.
func (r *Run) PluginsDir() string { return filepath.Join(r.KubeletDir, "plugins_registry") }

// State is the directory that holds all an agent remembers, mode 0700.
type State string

// Lock is DIR/lock, held while an agent runs.
func (s State) Lock() string { return filepath.Join(string(s), "lock") }

// Hub is DIR/hub.json: the node's name and how the hub is reached.
func (s State) Hub() string { return filepath.Join(string(s), "hub.json") }

// HubToken is DIR/hub-token.json: the hub account's token and its end.
func (s State) HubToken() string { return filepath.Join(string(s), "hub-token.json") }

// Key is DIR/key: the private half of the pair that bind seals credentials to.
func (s State) Key() string { return filepath.Join(string(s), "key") }

// Hardware is DIR/hardware.json: the machine that the rest is of.
func (s State) Hardware() string { return filepath.Join(string(s), "hardware.json") }

// Boot keeps when this boot of the machine began, by the hub's time.
func (s State) Boot() string { return filepath.Join(string(s), "boot.json") }

// Target is DIR/target: everything that belongs to one binding, wiped at release.
func (s State) Target() string { return filepath.Join(string(s), "target") }

// Credential is DIR/target/credential.json: how the target is reached, as whom,
// and for which epoch.
func (s State) Credential() string { return filepath.Join(s.Target(), "credential.json") }

// End is DIR/target/end.json: when the binding ends; not there if it has no end.
func (s State) End() string { return filepath.Join(s.Target(), "end.json") }

// ServingCertificates is DIR/target/serving: the certificate of :10250.
func (s State) ServingCertificates() string { return filepath.Join(s.Target(), "serving") }

// Pods is DIR/pods: the volumes of pods. Not the target's: pods outlive a
// damaged credential.
func (s State) Pods() string { return filepath.Join(string(s), "pods") }

// Volumes is DIR/volumes: what pods' volumes are mounted from.
func (s State) Volumes() string { return filepath.Join(string(s), "volumes") }

// GPUs is DIR/gpus.json: which GPUs there are and which failed. Not the target's: a
// GPU is no better for being bound elsewhere.
func (s State) GPUs() string { return filepath.Join(string(s), "gpus.json") }

// Registered is DIR/target/registered: there once the Node of this binding stood.
func (s State) Registered() string { return filepath.Join(s.Target(), "registered") }

// Images is DIR/images: with whose credentials images were pulled. Not the target's:
// images outlive a binding, and the next cluster's pods are not the last one's.
func (s State) Images() string { return filepath.Join(string(s), "images") }

// BucketCache is DIR/bucket-cache, where the cache of buckets is mounted. Always there,
// wherever its disk is: so one that is not asked for any more is found.
func (s State) BucketCache() string { return filepath.Join(string(s), "bucket-cache") }
