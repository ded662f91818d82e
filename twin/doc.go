// Package twin holds the rules of a device's twin: what was reported and how
// far it may be trusted, what is desired and who may change it, and how a
// write gets from one to the other. It is pure: no clock, no I/O, no
// goroutine; time is an argument and a decision is a return value.
//
// Three parts: Desired is what someone wants, versioned, with the conflict rule
// between cloud and edge. Twin is the edge's side, owned by the device's loop.
// Shadow is the hub's side, fed by what edges send. Document is how either is
// shown to users.
package twin
