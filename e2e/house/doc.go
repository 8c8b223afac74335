// Package house holds the rules of the house as tests that run in a second:
// which way imports point, that every room says what it is for, that files stay
// readable, and that the contract's strings stand in one place.
//
//	go test ./e2e/house
package house
