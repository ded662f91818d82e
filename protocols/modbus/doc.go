// Package modbus speaks Modbus: bytes and frames, not devices. It holds how a
// value lies in registers (Order, Encoding), how requests are framed (Frame on
// TCP, AppendRTU and AppendASCII on serial lines, Request inside all of them),
// and a Line, the connection that several units share, under goburrow's client. What a register means, how it is scaled and when it is
// read is for the layers above.
//
// The sections cited are those of the "MODBUS Application Protocol
// Specification V1.1b3" (APS), of the "MODBUS Messaging on TCP/IP
// Implementation Guide V1.0b" (MIG) and of "MODBUS over Serial Line V1.02"
// (SER).
package modbus
