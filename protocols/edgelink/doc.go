// Package edgelink is the link between an edge and its hub as bytes: frames over
// a WebSocket (Conn), the records of an edge's log (Builder, DecodeRecord), the
// bodies of join and renewal, and the numbers both ends meet at. FORMAT.md
// beside it draws all of them and says who sends what when; the messages
// themselves are generated into pb.
//
// It knows nothing of devices, stores or policies. edgeruntime and devicehub
// import it.
package edgelink
