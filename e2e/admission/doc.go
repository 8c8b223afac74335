// Package admission proves the support table and the guards against a real API
// server: what is stored, what people read, what is refused, and what no other pod
// ever notices. Its test brings up a cluster of its own below .build/admission.
//
// AI-node pods that have to run do so on the ordinary node, which carries the
// contract's label for that while: what is tested is admission, and the story in
// e2e/story runs such pods on a real AI node.
//
// It needs root. By itself:
//
//	go test -v -count=1 ./e2e/admission
package admission
