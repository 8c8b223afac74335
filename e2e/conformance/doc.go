// Package conformance is the Kubernetes project's own end-to-end suite, as far as
// it judges nodes: the yardstick of `make conformance`, and none of ours. It is a
// Go module of its own, so that Kubernetes and its dependencies, in exactly its
// versions, stay out of the product. The program that runs it is e2e/cmd/conformance.
package conformance
