// Package metrics shows that the metrics API knows AI nodes: the Kubernetes project's
// own metrics-server, with the manifests of its module, reads the agent as it reads a
// kubelet, by a ServiceAccount's token and with certificates verified. kubectl top and a
// HorizontalPodAutoscaler live on it. Its test brings up a cluster of its own below
// .build/metrics.
//
// It needs root and some minutes, the more the first time: metrics-server is built from
// its module. By itself:
//
//	go test -v -count=1 -tags long ./e2e/metrics
package metrics
