package serial

import "github.com/tarm/serial"

func openDevice(c Config) (device, error) {
	parity := map[Parity]serial.Parity{None: serial.ParityNone, Even: serial.ParityEven, Odd: serial.ParityOdd}[c.Parity]
	// Without a read timeout Close would wait for the next byte to come.
	return serial.OpenPort(&serial.Config{Name: c.Device, Baud: c.Baud, Size: byte(c.DataBits), Parity: parity,
		StopBits: serial.StopBits(c.StopBits), ReadTimeout: tick})
}
