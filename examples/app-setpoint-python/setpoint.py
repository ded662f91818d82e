#!/usr/bin/env python3
"""An app beside the devices: it learns how a boiler answers to its setpoint,
predicts the temperature, and writes the setpoint that brings it to a target in
time. It needs paho-mqtt and numpy, and the variables that the edge gives its apps.

    setpoint.py --device boiler-1 --target 62 --horizon 60

While somebody says severity 3 on alarms/DEVICE/…, it does not ask for more heat.
"""

import argparse
import json
import logging
import os
import queue
import signal
import sys
import time
import uuid
from datetime import datetime, timezone
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

import control

log = logging.getLogger("setpoint")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--device", required=True)
    p.add_argument("--temperature", default="temperature", help="the property to bring to the target")
    p.add_argument("--setpoint", default="setpoint", help="the property to write")
    p.add_argument("--target", type=float, required=True)
    p.add_argument("--horizon", type=int, default=60, help="samples until the target is to be reached")
    p.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    p.add_argument("--decide", type=int, default=10, help="samples between decisions")
    p.add_argument("--least", type=float, default=0.5, help="change of the setpoint that is worth a write")
    p.add_argument("--lowest", type=float, default=20.0)
    p.add_argument("--highest", type=float, default=90.0)
    a = p.parse_args()
    if a.horizon < 1 or a.decide < 1 or a.every <= 0 or a.lowest > a.highest or not a.lowest <= a.target <= a.highest:
        p.error("--horizon, --decide and --every must be above 0, and the target between --lowest and --highest")
    return a


class App:
    """One thread, main's, owns everything here; paho's thread fills the queue."""

    def __init__(self, args, client):
        self.args, self.client = args, client
        self.model = control.Model()
        self.values = {}  # the good ones of our two properties
        self.alarms = set()  # topics that say severity 3
        self.before = None  # the sample before: temperature and setpoint
        self.asked = None  # what was written last, until it is answered: ($id, value)
        self.samples = 0

    def take(self, topic, payload):
        parts = topic.split("/")
        if parts[0] == "alarms":
            self.alarms.discard(topic)
            if payload and json.loads(payload).get("severity", 0) >= 3:
                self.alarms.add(topic)
        elif parts[2] == "properties":
            self.values.pop(parts[3], None)
            if payload:  # an empty one says that the device has gone
                report = json.loads(payload)
                if report["quality"] == "good" and isinstance(report["value"], (int, float)):
                    self.values[parts[3]] = float(report["value"])
        elif parts[2] == "desired":  # desired/result
            answer = json.loads(payload)
            if self.asked and answer.get("$id") == self.asked[0]:
                if "desiredVersion" not in answer:
                    log.error("the edge refuses %s: %s", self.asked[1], answer)
                self.asked = None

    def sample(self):
        """Takes a sample of both, learns from it, and now and then decides."""
        a = self.args
        now = (self.values.get(a.temperature), self.values.get(a.setpoint))
        if None in now:
            self.before = None  # not good: a gap, from which nothing is learnt
            return
        if self.before:
            self.model.add(self.before[0], self.before[1], now[0])
        self.before = now
        self.samples += 1
        if self.samples % a.decide:
            return
        fit = self.model.fit()
        wanted = round(control.choose(fit, now[0], a.target, a.horizon, a.lowest, a.highest), 1)
        if self.alarms and wanted > now[1]:
            log.warning("%s would be %s, but %s", a.setpoint, wanted, sorted(self.alarms))
            wanted = now[1]
        soon = control.predict(fit, now[0], wanted, a.horizon)
        self.client.publish(
            "forecasts/" + a.device,
            json.dumps(
                {
                    "device": a.device,
                    "temperature": now[0],
                    "setpoint": wanted,
                    "forecast": [round(float(t), 2) for t in soon[:: max(1, a.horizon // 12)]],
                    "model": [round(float(v), 5) for v in fit],
                    "time": datetime.now(timezone.utc).isoformat(),
                }
            ),
            qos=1,
            retain=True,
        )
        if abs(wanted - now[1]) >= a.least:
            self.asked = (uuid.uuid4().hex, wanted)
            self.client.publish("devices/%s/desired" % a.device, json.dumps({a.setpoint: wanted, "$id": self.asked[0]}), qos=1)
            log.info("%.1f now, %.1f in %d samples: %s becomes %s", now[0], soon[-1], a.horizon, a.setpoint, wanted)


def main():
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    args = arguments()
    broker = urlsplit(os.environ["WHIMBREL_MQTT_URL"])
    user = os.environ["WHIMBREL_MQTT_USERNAME"]
    # The id is not the user's name alone: a new revision runs beside the old one.
    client = mqtt.Client(client_id="%s-%s" % (user, uuid.uuid4().hex[:8]))
    client.username_pw_set(user, os.environ["WHIMBREL_MQTT_PASSWORD"])
    client.reconnect_delay_set(1, 10)
    # When it is full, paho's thread waits, and the broker with it.
    inbox = queue.Queue(1000)

    def connected(client, _userdata, _flags, code):
        if code:
            log.error("the broker refuses us: %s", mqtt.connack_string(code))
            return
        device = "devices/%s/" % args.device
        client.subscribe(
            [
                (device + "properties/" + args.temperature, 1),
                (device + "properties/" + args.setpoint, 1),
                (device + "desired/result", 1),
                ("alarms/%s/#" % args.device, 1),
            ]
        )
        log.info("connected")

    def lost(_client, _userdata, code):
        if code:
            inbox.put(None)

    def subscribed(_client, _userdata, _mid, codes):
        if any(c >= 0x80 for c in codes):
            log.error("the broker refuses subscriptions: %s; see access in the pod's template", list(codes))

    client.on_connect, client.on_disconnect, client.on_subscribe = connected, lost, subscribed
    client.on_message = lambda _client, _userdata, m: inbox.put((m.topic, m.payload))
    client.connect_async(broker.hostname, broker.port or 1883, keepalive=15)
    client.loop_start()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = App(args, client)
    due = time.monotonic() + args.every
    try:
        while True:
            try:
                message = inbox.get(timeout=max(0, due - time.monotonic()))
                if message is None:
                    app.values.clear()  # they grow old from here on
                else:
                    app.take(*message)
            except queue.Empty:
                pass
            except (ValueError, KeyError, IndexError) as e:
                log.warning("a message that makes no sense: %r", e)
            if time.monotonic() >= due:
                due = time.monotonic() + args.every
                app.sample()
    finally:
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    main()
