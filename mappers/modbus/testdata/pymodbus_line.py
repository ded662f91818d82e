"""The other end of pymodbus_linux_test.go, on a serial line.

serve PATH rtu|ascii   a Modbus server; prints "ready", ends with stdin
ask PATH rtu|ascii     does what the JSON list on stdin says and prints the results as JSON
"""
import asyncio
import json
import sys

from pymodbus.client import ModbusSerialClient
from pymodbus.datastore import (
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSlaveContext,
)
from pymodbus.server.async_io import ModbusSerialServer
from pymodbus.transaction import ModbusAsciiFramer, ModbusRtuFramer

FRAMERS = {"rtu": ModbusRtuFramer, "ascii": ModbusAsciiFramer}
LINE = {"baudrate": 115200, "bytesize": 8, "parity": "N", "stopbits": 1}


def unit(shift):
    return ModbusSlaveContext(
        di=ModbusSequentialDataBlock(0, [i % 2 == 0 for i in range(2000)]),
        co=ModbusSequentialDataBlock(0, [i % 3 == 0 for i in range(2000)]),
        hr=ModbusSequentialDataBlock(0, [i + shift for i in range(500)]),
        ir=ModbusSequentialDataBlock(0, [2 * i + shift for i in range(500)]),
        zero_mode=True,
    )


async def serve(path, kind):
    context = ModbusServerContext(slaves={1: unit(0), 2: unit(1000)}, single=False)
    # A unit that is not there says nothing, as on any serial line.
    server = ModbusSerialServer(
        context, FRAMERS[kind], port=path, ignore_missing_slaves=True, **LINE
    )
    await server.start()
    task = asyncio.ensure_future(server.serve_forever())
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    task.cancel()


def ask(path, kind):
    client = ModbusSerialClient(path, framer=FRAMERS[kind], timeout=5, **LINE)
    if not client.connect():
        sys.exit("cannot connect")
    out = []
    for job in json.load(sys.stdin):
        address, slave = job["register"], job["unit"]
        if "write" in job:
            answer = client.write_registers(address, job["write"], slave=slave)
        else:
            answer = client.read_holding_registers(address, job["count"], slave=slave)
        if answer.isError():
            out.append(f"exception {getattr(answer, 'exception_code', answer)}")
        else:
            out.append("written" if "write" in job else answer.registers)
    client.close()
    json.dump(out, sys.stdout)


if sys.argv[1] == "serve":
    asyncio.run(serve(*sys.argv[2:]))
else:
    ask(*sys.argv[2:])
