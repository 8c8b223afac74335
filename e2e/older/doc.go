// Package older shows that AI nodes can be bound to a cluster whose API server is two
// minors older than the one that the project is built with, and what is said of a newer.
// (Kubernetes lets no kubelet be newer than its API server; an agent asks for stable APIs
// alone.) Its tests bring up clusters of their own below .build/older and .build/newer,
// control plane and ordinary node of that version.
//
// It needs root, and a quarter of an hour the first time: that Kubernetes is built from
// its modules. By itself:
//
//	go test -v -count=1 -timeout 1h -tags long ./e2e/older
package older
