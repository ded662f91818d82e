"""The other end of pymodbus_test.go.

serve           a Modbus TCP server on a free port, which it prints; ends with stdin
ask HOST PORT   does what the JSON list on stdin says and prints the results as JSON
"""
import asyncio
import json
import sys

from pymodbus.client import ModbusTcpClient
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


def unit(shift):
    return ModbusSlaveContext(
        di=ModbusSequentialDataBlock(0, [i % 2 == 0 for i in range(2000)]),
        co=ModbusSequentialDataBlock(0, [i % 3 == 0 for i in range(2000)]),
        hr=ModbusSequentialDataBlock(0, [i + shift for i in range(500)]),
        ir=ModbusSequentialDataBlock(0, [2 * i + shift for i in range(500)]),
        zero_mode=True,
    )


async def serve():
    context = ModbusServerContext(slaves={1: unit(0), 2: unit(1000)}, single=False)
    server = ModbusTcpServer(context, address=("127.0.0.1", 0))
    task = asyncio.ensure_future(server.serve_forever())
    await server.serving
    print(server.server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    task.cancel()


def ask(host, port):
    client = ModbusTcpClient(host, port=int(port), timeout=5)
    if not client.connect():
        sys.exit("cannot connect")
    out = []
    for job in json.load(sys.stdin):
        out.append(do(client, job))
    client.close()
    json.dump(out, sys.stdout)


def do(client, job):
    address, count, slave = job["register"], job.get("count", 1), job["unit"]
    byteorder, wordorder = ORDERS[job.get("order", "ABCD")]
    encoding = job["encoding"]
    if job.get("write") is not None:
        if encoding == "bool":
            answer = client.write_coil(address, job["write"], slave=slave)
        elif encoding == "bits":
            answer = client.write_coils(address, job["write"], slave=slave)
        elif encoding == "register":
            answer = client.write_register(address, job["write"], slave=slave)
        else:
            builder = BinaryPayloadBuilder(byteorder=byteorder, wordorder=wordorder)
            if encoding == "string":
                builder.add_string(job["write"])
            else:
                getattr(builder, "add_" + METHODS[encoding])(job["write"])
            answer = client.write_registers(address, builder.to_registers(), slave=slave)
        return f"exception {answer.exception_code}" if answer.isError() else "written"
    read = {
        "coil": client.read_coils, "discrete": client.read_discrete_inputs,
        "input": client.read_input_registers, "holding": client.read_holding_registers,
    }[job["table"]]
    answer = read(address, count, slave=slave)
    if answer.isError():
        return f"exception {answer.exception_code}"
    if encoding == "bool":
        return answer.bits[:count]
    decoder = BinaryPayloadDecoder.fromRegisters(answer.registers, byteorder=byteorder, wordorder=wordorder)
    if encoding == "string":
        return decoder.decode_string(2 * count).decode("latin-1")
    return getattr(decoder, "decode_" + METHODS[encoding])()


if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    ask(*sys.argv[2:])
