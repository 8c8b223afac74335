// Package privilege is the list of what the accounts of an AI node may do, why, and
// what holds them down where a cluster's authorizer alone would not; docs/security.md is
// printed from it, and the story asks a real API server, about every verb on every
// resource that it knows, whether the list is all:
//
//	go test ./e2e/privilege -update
package privilege
