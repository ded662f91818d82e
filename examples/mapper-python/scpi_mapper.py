#!/usr/bin/env python3
"""A Whimbrel mapper for SCPI instruments over TCP (raw sockets, usually port 5025).

It needs nothing but the standard library and paho-mqtt 1.6 or newer:

    export $(whimbrel mapper credential scpi -o env)
    python3 scpi_mapper.py

What it and the edge say to each other is in docs/mapper-protocol.md. A device:

    connection: {url: "tcp://192.0.2.7:5025", timeout: 1s}
    address:    {query: "MEAS:VOLT?"}                  read
                {query: "VOLT?", set: "VOLT {value}"}  read and write

One thread serves one device, so that a slow one holds up no other. The main
thread sends heartbeats as long as none of them is stuck.
"""

import json
import logging
import math
import os
import queue
import re
import signal
import socket
import sys
import threading
import time
from datetime import datetime, timezone
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

NAME = "scpi"
VERSION = "1.0.0"
HEARTBEAT = 1.0  # seconds

CONNECTION = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "pattern": "^tcp://[^/]+:[0-9]+$", "description": "tcp://host:port"},
        "timeout": {"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m))+$", "default": "1s"},
    },
}

ADDRESS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["query"]}, {"required": ["set"]}],
    "properties": {
        "query": {"type": "string", "pattern": "\\?", "maxLength": 200, "description": "what is sent to read"},
        "set": {"type": "string", "pattern": "\\{value\\}", "maxLength": 200, "description": "what is sent to write; {value} is the value"},
    },
}

log = logging.getLogger(NAME)


class Refusal(Exception):
    """A configuration that this mapper cannot work with: pointers and details."""

    def __init__(self, *errors):
        super().__init__("; ".join("%s: %s" % e for e in errors))
        self.errors = [{"pointer": pointer, "detail": detail} for pointer, detail in errors]


class Failure(Exception):
    """The device as a whole does not answer, or one write failed."""

    def __init__(self, reason, message, refused=False, unsent=False):
        super().__init__(message)
        self.reason, self.message, self.refused, self.unsent = reason, message, refused, unsent

    def json(self):
        out = {"reason": self.reason, "message": self.message}
        if self.refused:
            out["refused"] = True
        if self.unsent:
            out["unsent"] = True
        return out


UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def seconds(text):
    """Reads a duration such as 500ms or 1m30s."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError("%r is no duration" % text)
    return sum(float(n) * UNITS[u] for n, u in parts)


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Line:
    """The connection to an instrument. Whatever goes wrong ends it: a late answer
    must not be taken for the next one."""

    def __init__(self, host, port, timeout):
        self.host, self.port, self.timeout = host, port, timeout
        self.socket = None
        self.rest = b""

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.rest = None, b""

    def connect(self):
        if self.socket is not None:
            return
        try:
            self.socket = socket.create_connection((self.host, self.port), self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as e:
            raise Failure("not-connected", "cannot connect to %s:%d: %s" % (self.host, self.port, e), unsent=True)

    def ask(self, command, answer=True):
        """Sends a line, and returns the line that comes back."""
        self.connect()
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(command.encode("ascii", "replace") + b"\n")
            if not answer:
                return ""
            deadline = time.monotonic() + self.timeout
            while b"\n" not in self.rest:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise socket.timeout()
                self.socket.settimeout(left)
                more = self.socket.recv(4096)
                if not more:
                    raise ConnectionError("the device closed the connection")
                self.rest += more
                if len(self.rest) > 65536:
                    self.close()
                    raise Failure("protocol-error", "an answer without end")
            line, self.rest = self.rest.split(b"\n", 1)
            return line.decode("utf-8", "replace").strip()
        except socket.timeout:
            self.close()
            raise Failure("timeout", "no answer to %s within %gs" % (command, self.timeout))
        except OSError as e:
            self.close()
            raise Failure("not-connected", str(e))


class Property:
    """One property, compiled: nothing is looked up while it is read."""

    def __init__(self, spec):
        self.name, self.type = spec["name"], spec["type"]
        at = "/spec/properties/%s/address" % self.name
        address = spec.get("address") or {}
        for field in address:
            if field not in ("query", "set"):
                raise Refusal((at + "/" + field, "unknown field; known are query, set"))
        self.query, self.set = address.get("query"), address.get("set")
        if self.type not in ("bool", "int", "float", "string"):
            raise Refusal((at, "SCPI has no values of type %s: use bool, int, float or string" % self.type))
        if "Read" in spec["access"] and (not isinstance(self.query, str) or "?" not in self.query):
            raise Refusal((at + "/query", "is required to read, and has a ?"))
        if "Write" in spec["access"] and (not isinstance(self.set, str) or "{value}" not in self.set):
            raise Refusal((at + "/set", "is required to write, and has {value}"))
        for field, text in address.items():
            if not isinstance(text, str) or "\n" in text or "\r" in text:
                raise Refusal((at + "/" + field, "must be one line of text"))
        self.every = seconds(spec["every"]) if spec.get("every") else None
        self.due = 0.0

    def parse(self, text):
        """Makes a sample's fields of an answer."""
        try:
            if self.type == "bool":
                if text.upper() in ("1", "ON"):
                    return {"value": True}
                if text.upper() in ("0", "OFF"):
                    return {"value": False}
                raise ValueError(text)
            if self.type == "string":
                if len(text) >= 2 and text[0] == text[-1] == '"':
                    text = text[1:-1].replace('""', '"')
                return {"value": text}
            number = float(text)
            if math.isnan(number) or abs(number) >= 9.9e37:  # SCPI's NaN and infinities
                return {"quality": "bad", "reason": "not-a-number"}
            if self.type == "int":
                return {"value": int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number)}
            return {"value": number}
        except ValueError:
            return {"quality": "bad", "reason": "protocol-error"}

    def format(self, value):
        if self.type == "bool":
            return "1" if value else "0"
        if self.type == "string":
            if "\n" in value or "\r" in value:
                raise Failure("configuration", "a string must be one line", refused=True)
            return '"%s"' % value.replace('"', '""')
        return repr(value)


class Device(threading.Thread):
    """Serves one device until it is stopped."""

    def __init__(self, mapper, spec):
        super().__init__(daemon=True, name=spec["device"])
        self.mapper = mapper
        self.device, self.assignment = spec["device"], spec["assignment"]
        connection = spec.get("connection") or {}
        for field in connection:
            if field not in ("url", "timeout"):
                raise Refusal(("/spec/connection/" + field, "unknown field; known are url, timeout"))
        url = urlsplit(str(connection.get("url", "")))
        try:
            port = url.port
        except ValueError:
            port = None
        if url.scheme != "tcp" or not url.hostname or not port:
            raise Refusal(("/spec/connection/url", "must be tcp://host:port"))
        try:
            timeout = seconds(connection.get("timeout", "1s"))
        except (ValueError, TypeError):
            raise Refusal(("/spec/connection/timeout", "must be a duration such as 500ms"))
        self.line = Line(url.hostname, port, timeout)
        self.properties = {p["name"]: Property(p) for p in spec.get("properties", [])}
        self.requests = queue.Queue(maxsize=100)  # full: the edge asks one thing at a time, so something is wrong
        self.stopping = threading.Event()
        self.failures = 0
        self.busy_since = None  # for the watch

    def stop(self):
        self.stopping.set()
        self.requests.put(None)

    def run(self):
        while not self.stopping.is_set():
            wait = self.wait()
            try:
                request = self.requests.get(timeout=wait) if wait is None or wait > 0 else self.requests.get_nowait()
            except queue.Empty:
                request = None
            self.busy_since = time.monotonic()
            try:
                if request is not None:
                    self.answer(*request)
                elif not self.stopping.is_set():
                    self.poll()
            except Exception:
                log.exception("%s: this is a mistake of the mapper's", self.device)
                time.sleep(1)  # not a busy loop of them
            self.busy_since = None
        self.line.close()

    def wait(self):
        """How long until something is to be read by itself; None for never."""
        due = [p.due for p in self.properties.values() if p.every]
        return None if not due else max(0.0, min(due) - time.monotonic())

    def poll(self):
        at = time.monotonic()
        due = [p for p in self.properties.values() if p.every and p.due <= at]
        for p in due:
            # On the grid, without making up for what was missed.
            p.due = at + p.every if p.due == 0 else p.due + p.every * (1 + int((at - p.due) / p.every))
        try:
            samples = [dict(self.read_checked(p), property=p.name) for p in due]
        except Failure as f:
            self.failures += 1
            self.mapper.say("state", {"device": self.device, "assignment": self.assignment, "state": "offline", "reason": f.reason, "message": f.message})
            # A device that is away is not asked at every turn.
            pause = min(0.25 * 2 ** min(self.failures, 6), 10.0)
            for p in self.properties.values():
                if p.every:
                    p.due = max(p.due, time.monotonic() + pause)
            return
        if self.failures:  # the others are bad still: read them at once
            self.failures = 0
            for p in self.properties.values():
                p.due = 0 if p not in due else p.due
        if samples:
            self.mapper.say("batch", {"device": self.device, "assignment": self.assignment, "time": now(), "samples": samples})

    def read(self, p):
        text = self.line.ask(p.query)
        if text == "":
            return {"quality": "bad", "reason": "device-error"}
        return p.parse(text)

    def read_checked(self, p):
        """Reads a property that the instrument may not know. It then says nothing,
        which looks like an instrument that is away; *IDN? tells the two apart."""
        try:
            return self.read(p)
        except Failure as f:
            if f.reason != "timeout":
                raise
            self.line.ask("*IDN?")  # raises when nobody is there
            return {"quality": "bad", "reason": "device-error"}

    def answer(self, kind, request):
        out = {"id": request["id"]}
        try:
            if request["assignment"] != self.assignment:
                raise Failure("configuration", "of a former assignment", unsent=True)
            if kind == "read":
                out["results"] = [self.read_checked(self.properties[name]) for name in request["properties"]]
            else:
                out["results"] = [self.write(w) for w in request["writes"]]
        except Failure as f:
            out = {"id": request["id"], "error": f.json()}
        self.mapper.say("answer", out)

    def write(self, w):
        p = self.properties[w["property"]]
        try:
            self.line.connect()
            for _ in range(100):  # what went wrong before is not this write's fault
                if self.line.ask("SYST:ERR?").startswith(("0,", "+0,")):
                    break
            self.line.ask(p.set.replace("{value}", p.format(w["value"])), answer=False)
            error = self.line.ask("SYST:ERR?")
            if not error.startswith(("0,", "+0,")):
                raise Failure("device-error", error, refused=True)
            return {}
        except Failure as f:
            return {"error": f.json()}


class Mapper:
    def __init__(self, url, username, password):
        self.devices = {}
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.live = False
        url = urlsplit(url)
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 1883
        # A clean session: a write of a former session must not come late.
        if hasattr(mqtt, "CallbackAPIVersion"):
            self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, clean_session=True)
        else:
            self.client = mqtt.Client(clean_session=True)
        self.client.username_pw_set(username, password)
        self.client.will_set(self.topic("bye"), "{}", qos=1)
        self.client.reconnect_delay_set(min_delay=1, max_delay=10)
        self.client.max_queued_messages_set(10000)  # full: what is newest is not kept
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_message = self.on_message

    def topic(self, kind):
        return "mappers/%s/%s" % (NAME, kind)

    def say(self, kind, message, qos=1):
        self.client.publish(self.topic(kind), json.dumps(message, allow_nan=False), qos=qos)

    def on_connect(self, client, userdata, flags, code):
        if code != 0:
            log.error("the broker refuses the connection: %s", mqtt.connack_string(code))
            return
        client.subscribe([(self.topic(kind), 1) for kind in ("welcome", "devices", "read", "write", "problem")])
        self.announce()

    def announce(self):
        self.say("announce", {
            "protocol": 1, "version": VERSION, "description": "SCPI instruments over TCP",
            "connection": CONNECTION, "address": ADDRESS, "heartbeat": "%gs" % HEARTBEAT,
        })

    def on_disconnect(self, client, userdata, code):
        log.info("disconnected from the broker (%s)", code)
        self.drop_all()

    def drop_all(self):
        with self.lock:
            self.live = False
            devices, self.devices = self.devices, {}
        for d in devices.values():
            d.stop()

    def on_message(self, client, userdata, message):
        kind = message.topic.rsplit("/", 1)[1]
        try:
            body = json.loads(message.payload)
            if kind == "welcome":
                log.info("served by %s", body.get("node"))
                self.drop_all()  # the edge hands everything over anew
                self.live = True
            elif kind == "problem":
                if body.get("client") == client._client_id.decode() or not self.live:
                    log.error("the edge refuses %s: %s", body.get("topic"), body.get("detail"))
            elif kind == "devices":
                self.assign(body)
            else:
                self.request(kind, body)
        except Exception:
            log.exception("a message on %s", message.topic)

    def assign(self, body):
        with self.lock:
            old = self.devices.get(body["device"])
            if body.get("removed"):
                if old is None or old.assignment != body["assignment"]:
                    return
                del self.devices[body["device"]]
        if body.get("removed"):
            old.stop()
            return
        reply = {"device": body["device"], "assignment": body["assignment"]}
        if old is None or old.assignment != body["assignment"]:  # else the edge has not heard the answer
            if old is not None:
                old.stop()
            try:
                device = Device(self, body)
            except Refusal as e:
                with self.lock:
                    self.devices.pop(body["device"], None)
                self.say("state", dict(reply, state="refused", errors=e.errors))
                return
            with self.lock:
                self.devices[body["device"]] = device
            device.start()
        self.say("state", dict(reply, state="accepted"))

    def request(self, kind, body):
        with self.lock:
            device = self.devices.get(body["device"])
        try:
            if device is None:
                raise Failure("configuration", "no such device here", unsent=True)
            device.requests.put_nowait((kind, body))
        except (Failure, queue.Full) as e:
            f = e if isinstance(e, Failure) else Failure("device-error", "too many requests wait", unsent=True)
            self.say("answer", {"id": body["id"], "error": f.json()})

    def stuck(self):
        """A device whose thread has been at one thing for far too long."""
        with self.lock:
            devices = list(self.devices.values())
        at = time.monotonic()
        return [d.device for d in devices if d.busy_since and at - d.busy_since > 60 + 10 * d.line.timeout]

    def run(self):
        self.client.connect_async(self.host, self.port, keepalive=10)
        self.client.loop_start()
        while not self.stopping.wait(HEARTBEAT):
            if self.stuck():
                log.error("stuck: %s", self.stuck())
                return 1  # whoever watches over processes starts it anew
            if self.live:
                self.say("heartbeat", {}, qos=0)
            elif self.client.is_connected():
                self.announce()  # another process may have had the name
        self.drop_all()
        if self.client.is_connected():
            self.client.publish(self.topic("bye"), "{}", qos=1).wait_for_publish(1)
        self.client.disconnect()
        self.client.loop_stop()
        return 0


def main():
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s")
    try:
        mapper = Mapper(os.environ["WHIMBREL_MQTT_URL"], os.environ["WHIMBREL_MQTT_USERNAME"], os.environ["WHIMBREL_MQTT_PASSWORD"])
    except KeyError as e:
        print("%s is not set: see whimbrel mapper credential" % e, file=sys.stderr)
        return 2
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: mapper.stopping.set())
    return mapper.run()


if __name__ == "__main__":
    sys.exit(main())
