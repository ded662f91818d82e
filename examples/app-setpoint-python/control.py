"""What the app decides, without clock or network: a model of the boiler that is
learnt while it runs, and the setpoint that the model asks for."""

import collections

import numpy as np


class Model:
    """The temperature's next sample, as a linear function of the present sample
    and of the setpoint:  T' = a*T + b*S + c.

    The last `window` samples are fitted by least squares, drawn towards a slow
    first-order boiler that reaches its setpoint: as long as nothing has moved, the
    data say nothing of a and b, and the guess stands.
    """

    GUESS = np.array([0.97, 0.03, 0.0])
    # In the guess: the sum of squares, in degrees, that outweighs it. A boiler that
    # is just starting says little of how it is later.
    TRUST = np.array([2000.0, 2000.0, 0.05])

    def __init__(self, window=600):
        self.rows = collections.deque(maxlen=window)

    def add(self, before, setpoint, after):
        """Learns what one sample became, with the setpoint that was in force."""
        self.rows.append((before, setpoint, after))

    def fit(self):
        """Returns a, b and c, with 0 < a < 1."""
        if not self.rows:
            return self.GUESS
        data = np.array(self.rows)
        x = np.column_stack([data[:, 0], data[:, 1], np.ones(len(data))])
        middle = np.array([data[:, 0].mean(), data[:, 1].mean(), 0])
        # Around the middle of the data, or the constant would drag the guess along.
        x = x - middle
        shift = self.GUESS @ (middle + [0, 0, 1]) - self.GUESS[2]
        y = data[:, 2] - shift
        root = np.sqrt(self.TRUST)
        fitted, *_ = np.linalg.lstsq(np.vstack([x, np.diag(root)]), np.concatenate([y, root * self.GUESS]), rcond=None)
        a, b, c = fitted
        a = float(np.clip(a, 0.01, 0.999))
        b = float(max(b, 0.001))  # more heat never cools
        # c as seen from zero again
        c = float(c + shift - a * middle[0] - b * middle[1])
        return np.array([a, b, c])


def predict(model, temperature, setpoint, steps):
    """Returns the temperatures of the next samples under one setpoint."""
    a, b, c = model
    n = np.arange(1, steps + 1)
    rest = (b * setpoint + c) / (1 - a)
    return rest + a**n * (temperature - rest)


def choose(model, temperature, target, steps, lowest, highest):
    """Returns the setpoint with which the model is at the target in `steps`
    samples, as near as the bounds allow."""
    a, b, c = model
    grown = (1 - a**steps) / (1 - a)  # a geometric series
    wanted = ((target - a**steps * temperature) / grown - c) / b
    return float(np.clip(wanted, lowest, highest))
