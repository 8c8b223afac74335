// Package binding proves on two real control planes and real machines that a binding
// can be trusted: nodes move between clusters, whatever is interrupted goes on where
// it stopped, and no pod runs on two machines, whoever is cut off, copied, deleted or
// restored.
//
// Cluster a is the hub and a target too, cluster b a target alone; both and the
// machines are cabled to each other. Its test brings them up below .build/binding. All is
// typed by a person who has the role that the plugin's own words grant, and nothing else.
//
// It needs root. By itself:
//
//	go test -v -count=1 ./e2e/binding
package binding
