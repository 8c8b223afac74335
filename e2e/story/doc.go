// Package story tells the product's whole story on real parts: a cluster, a GPU
// machine outside it, import, bind, four kinds of workload, unbind. `make demo`
// shows it to people and leaves it running; the test of this package walks the
// same steps and then attacks what stands.
//
// It needs root, for network namespaces and containerd. As a test, by itself:
//
//	go test -v -count=1 -timeout 35m ./e2e/story
package story
