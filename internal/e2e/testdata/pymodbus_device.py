"""A Modbus TCP device made of pymodbus, which also says what it holds.

Prints the port that it listens on. Then each line of stdin is a JSON list of
points {table, register, encoding, order, length, bit, value}: those with a value
are put into the registers, those without are read from them, and one line with
the JSON list of what the points hold answers. It ends with stdin.
"""
import asyncio
import json
import sys

from pymodbus.constants import Endian
from pymodbus.datastore import (
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSlaveContext,
)
from pymodbus.payload import BinaryPayloadBuilder, BinaryPayloadDecoder
from pymodbus.server.async_io import ModbusTcpServer

# byte order, word order
ORDERS = {
    "ABCD": (Endian.Big, Endian.Big),
    "CDAB": (Endian.Big, Endian.Little),
    "BADC": (Endian.Little, Endian.Big),
    "DCBA": (Endian.Little, Endian.Little),
}
METHODS = {
    "int16": "16bit_int", "uint16": "16bit_uint", "int32": "32bit_int", "uint32": "32bit_uint",
    "int64": "64bit_int", "uint64": "64bit_uint", "float32": "32bit_float", "float64": "64bit_float",
}
REGISTERS = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "int64": 4, "uint64": 4, "float32": 2, "float64": 4}
# By function code, as pymodbus's data store wants to be asked.
TABLES = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


def put(unit, p):
    fc, value = TABLES[p["table"]], p["value"]
    byteorder, wordorder = ORDERS[p.get("order", "ABCD")]
    if p["table"] in ("coil", "discrete"):
        unit.setValues(fc, p["register"], [value])
    elif "bit" in p:
        word = unit.getValues(fc, p["register"], 1)[0]
        mask = 1 << p["bit"]
        unit.setValues(fc, p["register"], [word | mask if value else word & ~mask])
    else:
        builder = BinaryPayloadBuilder(byteorder=byteorder, wordorder=wordorder)
        if p["encoding"] == "string":
            builder.add_string(value.ljust(2 * p["length"], "\0"))
        else:
            getattr(builder, "add_" + METHODS[p["encoding"]])(value)
        unit.setValues(fc, p["register"], builder.to_registers())


def get(unit, p):
    fc = TABLES[p["table"]]
    byteorder, wordorder = ORDERS[p.get("order", "ABCD")]
    if p["table"] in ("coil", "discrete"):
        return bool(unit.getValues(fc, p["register"], 1)[0])
    if "bit" in p:
        return bool(unit.getValues(fc, p["register"], 1)[0] >> p["bit"] & 1)
    count = p.get("length") or REGISTERS[p["encoding"]]
    decoder = BinaryPayloadDecoder.fromRegisters(unit.getValues(fc, p["register"], count), byteorder=byteorder, wordorder=wordorder)
    if p["encoding"] == "string":
        return decoder.decode_string(2 * count).decode("latin-1").rstrip("\0")
    return getattr(decoder, "decode_" + METHODS[p["encoding"]])()


async def main():
    unit = ModbusSlaveContext(
        di=ModbusSequentialDataBlock(0, [False] * 100),
        co=ModbusSequentialDataBlock(0, [False] * 100),
        hr=ModbusSequentialDataBlock(0, [0] * 500),
        ir=ModbusSequentialDataBlock(0, [0] * 500),
        zero_mode=True,
    )
    server = ModbusTcpServer(ModbusServerContext(slaves=unit, single=True), address=("127.0.0.1", 0))
    task = asyncio.ensure_future(server.serve_forever())
    await server.serving
    print(server.server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        points = json.loads(line)
        for p in points:
            if "value" in p:
                put(unit, p)
        print(json.dumps([get(unit, p) for p in points]), flush=True)
    task.cancel()


asyncio.run(main())
