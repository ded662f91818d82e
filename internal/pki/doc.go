// Package pki is the small private certificate authority behind the link
// between hub and edges, as both ends need it: keys, requests, certificates, the
// TLS settings that check them, and sealing of what the hub keeps secret.
//
// There is one authority per hub installation and it signs two sorts of
// certificates. A server certificate says "I am the hub" (URI
// spiffe://whimbrel/hub) and also carries host names for REST clients that
// check those. A node certificate says "I am node N" (common name N, URI
// spiffe://whimbrel/node/N). Everything is P-256 and TLS 1.3.
//
// Hosts at the edge, and some hubs, wake up in 1970. Between them dates of
// certificates are therefore not a reason to fail a handshake: what an expired node
// certificate may do is the hub's decision, by its own clock.
package pki
