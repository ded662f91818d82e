// Package identity decides who talks to the hub and what they may do: the
// hub's certificate authority, one-time join tokens and client certificates for
// nodes, API tokens and roles for people and programs.
//
// It keeps no state of its own besides short-lived caches. What must last goes
// through the small store interfaces in store.go; every implementation of them
// passes the suite in identitytest. Secrets never reach a store in the clear:
// tokens are stored as hashes, the authority's private key is sealed with the
// hub's key file.
//
// Only the hub and its wiring import this package.
package identity
