"""A mapper whose devices say nothing by themselves: it answers reads and writes, and
never sends a batch."""

import json
import os
import signal
import sys
import time
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

values = {}


def on_connect(client, userdata, flags, code):
    client.subscribe([("mappers/quiet/" + kind, 1) for kind in ("welcome", "devices", "read", "write", "problem")])
    say("announce", {"protocol": 1, "version": "1", "connection": {"type": "object"}, "address": {"type": "object"}, "heartbeat": "500ms"})


def on_message(client, userdata, message):
    kind, body = message.topic.rsplit("/", 1)[1], json.loads(message.payload)
    if kind == "devices" and not body.get("removed"):
        for p in body["properties"]:
            values.setdefault(p["name"], 20.5)
        say("state", {"device": body["device"], "assignment": body["assignment"], "state": "accepted"})
    elif kind == "read":
        say("answer", {"id": body["id"], "results": [{"value": values[name]} for name in body["properties"]]})
    elif kind == "write":
        for w in body["writes"]:
            values[w["property"]] = w["value"]
        say("answer", {"id": body["id"], "results": [{}] * len(body["writes"])})
    elif kind == "problem":
        print("problem:", body["detail"], file=sys.stderr, flush=True)


def say(kind, message):
    client.publish("mappers/quiet/" + kind, json.dumps(message), qos=1)


if hasattr(mqtt, "CallbackAPIVersion"):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, clean_session=True)
else:
    client = mqtt.Client(clean_session=True)
client.username_pw_set(os.environ["WHIMBREL_MQTT_USERNAME"], os.environ["WHIMBREL_MQTT_PASSWORD"])
client.reconnect_delay_set(min_delay=1, max_delay=1)
client.on_connect, client.on_message = on_connect, on_message
url = urlsplit(os.environ["WHIMBREL_MQTT_URL"])
client.connect(url.hostname, url.port)
client.loop_start()
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
while True:
    time.sleep(0.4)
    say("heartbeat", {})
