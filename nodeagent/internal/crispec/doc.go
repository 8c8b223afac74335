// Package crispec turns pods into what the container runtime is asked for: the
// CRI configuration of sandboxes and containers, environment variables, DNS and
// log paths. Its functions are pure; what they need from the API comes in through
// an interface. Field by field they do what the kubelet does, where an AI node
// does not say otherwise.
package crispec
