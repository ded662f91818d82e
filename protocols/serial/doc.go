// Package serial is a serial port with deadlines: a byte stream that is told
// apart from a cable that was pulled, and that can always be closed; and the
// messages of devices with protocols of their own: where they end, and their
// checksums. What they mean is for the packages above (the serial driver).
//
// It stands on tarm/serial, whose reads time out as io.EOF, return io.EOF at
// once for ever when the device is gone, and whose writes have no timeout at
// all. Nothing of that shows here.
package serial
