package yardstick

import "github.com/ainode/ainode/api/contract"

// ruledOut lists the tests that are not for AI nodes, each with the contract's row
// that says so. It is kept by hand: `make conformance` fails where a test is missing
// from it and where one that passes is in it.
var ruledOut = map[string]contract.Feature{}
