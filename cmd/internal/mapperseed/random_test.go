package mapperseed

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
)

// pools are values, good and bad, for every field that a driver knows. The first
// of each is a usual one, with which the other first ones make a good device.
var pools = map[string]struct{ connection, address map[string][]string }{
	"modbus": {
		connection: map[string][]string{
			"url": {`"tcp://h"`, `"tcp://h:1"`, `"tcp://h:0"`, `"TCP://[::1]:65536/"`, `"rtutcp://h:9"`, `"rtu:///dev/x"`, `"rtu:///dev/x?baud=300&dataBits=8"`,
				`"ascii:///dev/x?dataBits=7&parity=odd"`, `"ascii:///dev/x?stopBits=0"`, `"rtu://x"`, `"tcp://h?"`, `"tcp:///"`, `"rtu:///dev/x?&"`, `"rtu:///dev/x?baud=+9600"`, `"rtu:///a%20b"`, `"tcp://h%41"`},
			"unit": {"1", "0", "247", "248", "255", "1.0", "-0", "1e2", "null"}, "timeout": {`"1ms"`, `"999us"`, `"0"`, `"5m"`, `"5m1ns"`, `"+1s"`, `".5s"`, `"1.s"`},
			"maxRegisters": {"125", "1", "2", "4", "126"}, "maxBits": {"2000", "1"}, "maxGap": {"0", "2000", "2001"}, "pause": {`"0"`, `"1m"`, `"1m1s"`, `"-0s"`},
		},
		address: map[string][]string{
			"table": {`"holding"`, `"coil"`, `"discrete"`, `"input"`}, "register": {"0", "1", "65532", "65533", "65534", "65535", "65536", "7.0"},
			"reference": {"40001", "10001", "19999", "20000", "30001", "400001", "465536", "465534", "465533", `"00001"`, `"100001"`, `"065536"`, `"465535"`, `"040001"`, "99999", "165536"},
			"encoding":  {`"int16"`, `"bool"`, `"uint16"`, `"int32"`, `"uint64"`, `"float32"`, `"float64"`, `"string"`}, "order": {`"ABCD"`, `"DCBA"`},
			"length": {"1", "2", "3", "123", "124", "125"}, "bit": {"0", "15", "16"}, "scale": {"1", "0", "-3", "0.1", "1e-5", "9007199254740991", "0.0"},
			"offset": {"0", "-1", "0.5"}, "scaleFrom": {"0", "65535"}, "nullValue": {"0", "-1", "-32768", "65535", "65536", "4294967295", "1.0", "0.5", `"a"`, `"abcd"`, `"abcde"`, "1e39", "-9223372036854775808"},
			"writeFunction": {`"auto"`, `"single"`, `"multiple"`},
		},
	},
	"opcua": {
		connection: map[string][]string{
			"url":    {`"opc.tcp://h"`, `"opc.tcp://h:4840/x/"`, `"opc.tcp://h:"`, `"opc.tcp://[fe80::1%25eth0]:1"`, `"opc.tcp://h_1.x."`, `"opc.tcp://-h"`},
			"policy": {`"None"`, `"Basic256Sha256"`, `"Aes256_Sha256_RsaPss"`, `"auto"`}, "mode": {`"None"`, `"Sign"`, `"SignAndEncrypt"`, `"auto"`},
			"username": {`"me"`}, "password": {`""`, `"x"`}, "subscribe": {"true", "false"}, "publishingInterval": {`"10ms"`, `"9ms"`, `"10m"`, `"1h"`},
			"samplingInterval": {`"0"`, `"10m"`, `"-1ns"`}, "queueSize": {"1", "10000", "10001"}, "timeout": {`"1ms"`, `"5m"`, `"6m"`},
		},
		address: map[string][]string{
			"node": {`"i=1"`, `"i=0004294967295"`, `"i=4294967296"`, `"ns=59999;i=1"`, `"ns=60000;s=a"`, `"ns=65535;s=a;b"`, `"ns=65536;s=a"`, `"ns=0;s=ns=1;i=2"`, `"s=\n"`, `"s=a\nb"`, `"s=é"`,
				`"g=0123456789abcdef0123456789abcdef"`, `"g=01234567-89ab-cdef-0123-456789abcdef"`, `"b=YQ=="`, `"b=YWE="`, `"b=YWFh"`, `"b=YWFhYQ=="`, `"b=YR=="`, `"nsu=a;i=1"`, `"nsu=a%3Bb;s=x"`, `"nsu=%;i=1"`, `"nsu=é;g=1"`},
			"index": {"0", "2147483646", "2147483647", "3.0"},
		},
	},
	"serial": {
		connection: map[string][]string{
			"url":     {`"serial:///dev/x"`, `"serial:///dev/x?baud=110&dataBits=5&parity=none&stopBits=2"`, `"serial:///dev/x?baud=111"`, `"serial:/dev/x"`, `"serial:///dev/x?"`, `"serial://localhost/dev/x"`},
			"timeout": {`"1ms"`, `"1h"`, `"61m"`}, "terminator": {`"\r"`, `"\r\n"`, `"\u0003"`, `"a"`, `"{value}"`, `"é"`, `"0123456789abcdef"`, `"\u0000"`}, "length": {"1", "2", "3", "4", "4096"},
			"checksum": {`"none"`, `"xor"`, `"sum8"`, `"crc16"`}, "pause": {`"0s"`, `"1m"`}, "listen": {"true", "false"},
		},
		address: map[string][]string{
			"read": {`"W"`, `"a?"`, `"é"`, `"€"`, `"W\r\n"`, `"W\r"`, `"\n"`}, "match": {`"(.*)"`, `"(a)(b)"`, `"a"`, `"(?P<n>a)"`, `"(?i)(x)"`, `"a{1001}(b)"`, `"(a"`, `"\\Q(a)"`},
			"write": {`"{value}"`, `"SP {value}\r"`, `"€{value}"`, `"a{value}a"`, `"{value"`}, "expect": {`"OK"`, `"a|b"`, `"[a"`, `"(?i)ok"`, `"\\Qa"`},
		},
	},
}

// usual are the fields without which an address is none.
var usual = map[string][][]string{
	"modbus": {{"table", "register"}, {"table", "register", "encoding"}, {"reference"}, {"table", "register", "encoding", "length"}},
	"opcua":  {{"node"}},
	"serial": {{"read"}, {"match"}, {"write"}, {"read", "match", "write"}},
}

// types are the property's usual type of each protocol, then every type.
var types = map[string][]models.Type{
	"modbus": append([]models.Type{models.TypeInt}, models.Types...),
	"opcua":  append([]models.Type{models.TypeFloat}, models.Types...),
	"serial": append([]models.Type{models.TypeString}, models.Types...),
}

// pick draws the first value half of the time: a document is good only if all of
// its values are, so they must be so much more often than not.
func pick[V any](t *rapid.T, label string, values []V) V {
	if rapid.Bool().Draw(t, label+" as usual") {
		return values[0]
	}
	return rapid.SampledFrom(values).Draw(t, label)
}

// draw makes a document with the fields of one of the sets, and half of the time
// some others.
func draw(t *rapid.T, pool map[string][]string, sets ...[]string) []byte {
	doc := map[string]json.RawMessage{}
	always, more := pick(t, "fields", sets), rapid.Bool().Draw(t, "more")
	for _, name := range slices.Sorted(maps.Keys(pool)) {
		if slices.Contains(always, name) || more && rapid.IntRange(0, 5).Draw(t, name+"?") == 0 {
			doc[name] = json.RawMessage(pick(t, name, pool[name]))
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Whatever the hub lets through, the driver takes.
func TestHubTakesOnlyWhatDriversTake(t *testing.T) {
	for protocol, driver := range builtin.Drivers() {
		t.Run(protocol, func(t *testing.T) {
			info := driver.Info()
			connection, err1 := schema.Compile(info.Connection)
			address, err2 := schema.Compile(info.Address)
			property, err3 := schema.CompileProperty(info.Property)
			if err1 != nil || err2 != nil || err3 != nil {
				t.Fatal(err1, err2, err3)
			}
			drawn, taken := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				drawn++
				conn, addr := draw(t, pools[protocol].connection, []string{"url"}), draw(t, pools[protocol].address, usual[protocol]...)
				kind := pick(t, "type", types[protocol])
				access := pick(t, "access", []models.Access{models.Read, models.Write, models.ReadWrite})
				whole := fmt.Appendf(nil, `{"name": "p", "type": %q, "access": %q, "address": %s}`, kind, access, addr)
				if len(connection.Check(conn, ""))+len(address.Check(addr, ""))+len(property.Check(whole, ""))+len(property.CheckAgainst(whole, conn)) > 0 {
					return
				}
				taken++
				dev, err := driver.Open(mappers.DeviceConfig{Connection: conn, Points: []mappers.Point{{Property: "p", Type: kind, Access: access, Address: addr}}})
				if err != nil {
					t.Fatalf("%s %s: %v", conn, whole, err)
				}
				dev.Close()
			})
			// More than a fifth is taken and more than a third refused; of a hundred,
			// fewer than two come out about once in 10^9 runs.
			if refused := drawn - taken; drawn >= 100 && min(taken, refused)*50 < drawn {
				t.Errorf("of %d, the hub took %d and refused %d: the draws are no test", drawn, taken, refused)
			}
		})
	}
}
