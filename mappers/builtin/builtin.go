// Package builtin is the table of the drivers that ship with Whimbrel. A
// program that wants others as well adds them to the map it gets.
package builtin

import (
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/modbus"
	"github.com/whimbrel-edge/whimbrel/mappers/opcua"
	"github.com/whimbrel-edge/whimbrel/mappers/serial"
)

// Drivers returns new drivers by the protocol that they speak. Devices that are
// to share lines must be opened by the same ones.
func Drivers() map[string]mappers.Driver {
	return map[string]mappers.Driver{
		modbus.Name: modbus.New(),
		opcua.Name:  opcua.New(),
		serial.Name: serial.New(),
	}
}
