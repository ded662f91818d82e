"""The example mapper with mistakes that mapper authors make, one of them by name."""

import signal
import sys

sys.path.insert(0, sys.argv[1])
import scpi_mapper as m

fault = sys.argv[2]
if fault == "forgets-writes":
    m.Device.write = lambda self, w: {}
elif fault == "takes-anything":
    class Anything(m.Property):
        def __init__(self, spec):
            try:
                super().__init__(spec)
            except m.Refusal:
                self.name, self.type, self.every, self.due = spec["name"], spec["type"], None, 0.0
                self.query, self.set = "*IDN?", "VOLT {value}"
    m.Property = Anything
elif fault == "one-bad-apple":
    m.Device.read_checked = m.Device.read
elif fault == "stays":
    signal.signal = lambda *_: None
    import threading
    threading.Thread(target=threading.Event().wait).start()
    m.signal.SIGTERM, real = signal.SIGINT, signal.SIGTERM
    import ctypes
    ctypes.CDLL(None).signal(int(real), 1)  # SIG_IGN
elif fault == "misspells":
    say = m.Mapper.say

    def misspelt(self, kind, message, qos=1):
        if kind == "batch":
            for s in message["samples"]:
                s["vaule"] = s.pop("value", None)
        say(self, kind, message, qos)
    m.Mapper.say = misspelt
elif fault == "leaks":
    kept = []
    close = m.Line.close

    def leak(self):
        if self.socket is not None:
            kept.append(self.socket)
            self.socket = None
        close(self)
    m.Line.close = leak
elif fault == "silent":
    say = m.Mapper.say
    m.Mapper.say = lambda self, kind, message, qos=1: None if kind == "heartbeat" else say(self, kind, message, qos)
sys.exit(m.main())
