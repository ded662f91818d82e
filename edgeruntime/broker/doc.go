// Package broker is the edge's MQTT broker: MQTT 3.1.1 and 5 over TCP, with
// identities, a default-deny access list, the devices' topics (package
// protocols/mqtt) and everything else for the apps among themselves. It is
// mochi-mqtt with the weak places shored up; only edgeruntime and cmd import it.
//
// # What apps may rely on
//
//   - A patch published to devices/{device}/desired has been handed to Devices
//     before its PUBACK is sent. The answer goes to the response topic (MQTT 5)
//     or to devices/{device}/desired/result. The patch itself reaches no
//     subscriber and is never retained.
//   - devices/, mappers/, whimbrel/ and $ topics are published by the edge alone,
//     except devices/{device}/desired, and by a mapper what mappers say.
//   - What a mapper publishes is handed to Mappers, and acknowledged when they say
//     that it is done with. It reaches no subscriber.
//   - A refused PUBLISH is answered as mosquitto does: MQTT 5 with QoS above 0
//     gets reason 0x87; MQTT 3.1.1, which has no way to say so, gets an ordinary
//     acknowledgement. Either way the message is dropped and the log says so.
//   - A wildcard subscription that is wider than what the client may read is
//     granted and delivers the part it may read; one without such a part is
//     refused.
//   - QoS 1 messages of one publisher arrive in order, also after the subscriber
//     was away. A subscriber that reads too slowly loses QoS 0 messages first; it
//     holds up nobody else.
//   - Who connected with a credential that was taken away since is disconnected,
//     within a second or two; nothing of its session is kept.
//
// # Limits
//
// Sessions and retained messages live in memory: after a restart nothing of
// before is served, the runtime publishes its devices anew and apps subscribe
// again (their session is reported as not present). A session holds at most
// 8,192 unacknowledged messages, newer ones are dropped and counted; so does a
// QoS 1 subscription that meets more retained messages than that. QoS 2 is
// accepted, but across a reconnect promises no more than QoS 1. A last will
// cannot be a desired patch. Redelivered messages carry the DUP flag even when
// the first try never left the broker.
package broker
