// Package contract is the one place that says what an AI node promises: its
// names, the support table, and the pure functions that judge a pod by it.
//
// It imports k8s.io/api alone (with apimachinery) and sees no client, clock,
// disk or logger, so the webhook, the node agent and the command line all speak
// from the same table.
package contract
