// Package bridge lets mappers run as processes of their own, in any language: to
// the runtime each of them is a mappers.Driver, to the process the bridge is a
// few MQTT topics (docs/mapper-protocol.md). It knows no MQTT itself; whoever
// owns the broker hands messages in and publishes what the bridge says.
//
// A mapper reads its devices by itself, at the intervals that it is told, and
// reports what it read; the Runner takes it from there (mappers.Reporter). A
// message is done with, and may be acknowledged, when what it holds is on the
// disk. Sessions:
//
//	announce ─► welcome ─► devices, one message each ─► state "accepted" or "refused"
//	                       batch, state "offline" …      read, write ─► answer
//
// A session ends when its connection does, when the mapper says bye, or when it
// has not been heard for three heartbeats. The devices are then mapper-lost, and
// everything is handed over again in the next session. A second process that
// announces itself while a session lives is refused.
//
// No lock is held while something is published or a message reported done:
// either may come back into the bridge.
package bridge
