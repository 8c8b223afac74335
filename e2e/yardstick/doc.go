// Package yardstick measures nodes by a yardstick that is not ours: the tests of
// the Kubernetes project's end-to-end suite that are marked NodeConformance. It runs
// them on a kubelet, on an AI node and on an AI node behind the webhook, and writes
// the columns side by side into docs/conformance.md. `make conformance` starts it.
//
// The suite itself is e2e/conformance, a module of its own.
package yardstick
