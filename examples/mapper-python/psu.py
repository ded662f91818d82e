#!/usr/bin/env python3
"""A bench power supply that speaks SCPI over TCP, for trying the mapper on.

    python3 psu.py --listen 127.0.0.1:5025

One command a line; what ends in "?" is answered with a line. What it does not
understand it does not answer, and keeps an error for SYST:ERR?, as IEEE 488.2
and SCPI-99 have it.
"""

import argparse
import re
import socketserver
import threading


class Supply:
    def __init__(self):
        self.lock = threading.Lock()
        self.errors = []
        self.values = {"VOLT": 12.0, "CURR": 1.5}
        self.output = False
        self.label = "bench"

    def handle(self, line):
        """Returns the answer to a line, or None for none."""
        with self.lock:
            command, _, argument = line.strip().partition(" ")
            command, argument = command.upper(), argument.strip()
            if command == "*IDN?":
                return "WHIMBREL,PSU-1,0001,1.0"
            if command == "SYST:ERR?":
                return self.errors.pop(0) if self.errors else '0,"No error"'
            if command == "OUTP?":
                return "1" if self.output else "0"
            if command == "OUTP" and argument.upper() in ("0", "1", "ON", "OFF"):
                self.output = argument.upper() in ("1", "ON")
                return None
            if command == "SYST:LAB?":
                return '"%s"' % self.label.replace('"', '""')
            if command == "SYST:LAB" and re.fullmatch(r'"(?:[^"]|"")*"', argument):
                self.label = argument[1:-1].replace('""', '"')[:16]
                return None
            if command == "MEAS:VOLT?":
                return "%.3f" % (self.values["VOLT"] if self.output else 0)
            if command == "MEAS:CURR?":
                return "%.3f" % (self.values["VOLT"] / 8 if self.output else 0)
            name = command.rstrip("?")
            if name in self.values and command.endswith("?"):
                return "%.3f" % self.values[name]
            if name in self.values:
                try:
                    value = float(argument)
                except ValueError:
                    self.errors.append('-104,"Data type error"')
                    return None
                if not 0 <= value <= 30:
                    self.errors.append('-222,"Data out of range"')
                    return None
                self.values[name] = value
                return None
            self.errors.append('-113,"Undefined header"')
            return None


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--listen", default="127.0.0.1:5025")
    host, port = flags.parse_args().listen.rsplit(":", 1)
    supply = Supply()

    class Connection(socketserver.StreamRequestHandler):
        def handle(self):
            try:
                for line in self.rfile:
                    answer = supply.handle(line.decode("ascii", "replace"))
                    if answer is not None:
                        self.wfile.write((answer + "\n").encode())
            except OSError:
                pass  # the other end has gone

    with Server((host, int(port)), Connection) as server:
        print("listening on %s:%d" % server.server_address, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
