// Package models holds Whimbrel's nouns: device models, devices, nodes,
// mappers and users as users write them, the typed Value and Quality a
// property carries, strict decoding and validation, and the error kinds that
// cross every interface. It does no I/O, reads no clock and imports nothing of
// Whimbrel, so every other package may import it.
package models
