// Package ptyline is simulated serial lines: ptys that others open by a path
// that stays the same. Only simulators import it.
package ptyline
