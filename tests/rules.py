"""The update rules of Keras' optimizers, written out again for the reference.

Each is a function of the numbers (callables (t, i) -> tensor) that gives
update(t, i, w, g, slots) -> (w, slots); see `reference.unrolled`. From the papers
and Keras' documentation; nothing of Keras is called.
"""

import numpy as np
import tensorflow as tf


def _of(t, i, numbers):
    return [number(t, i) for number in numbers]


def _zeros(slots, count):
    return (0.0,) * count if slots is None else slots


def _power(base, t, w):
    return tf.pow(tf.cast(base, w.dtype), tf.cast(t, w.dtype))


def sgd(rate, mass, nesterov=False):
    """Keras' velocity is −η times the gradients' own."""

    def update(t, i, w, g, slots):
        a, mu = _of(t, i, (rate, mass))
        v = mu * _zeros(slots, 1)[0] - a * g
        return (w + mu * v - a * g if nesterov else w + v), (v,)

    return update


def by_norm(rule, limit):
    """Another rule, for gradients that are clipped by their norm."""

    def update(t, i, w, g, slots):
        n = limit(t, i)
        return rule(t, i, w, g * n / tf.maximum(tf.norm(g), n), slots)

    return update


def by_value(rule, limit):
    """Another rule, for gradients whose elements are clipped."""

    def update(t, i, w, g, slots):
        n = limit(t, i)
        return rule(t, i, w, tf.maximum(tf.minimum(g, n), -n), slots)

    return update


def averaged(rule, mass, every):
    """Another rule, whose weights are replaced by their average from time to time."""

    def update(t, i, w, g, slots):
        inner, average = (None, 0.0) if slots is None else slots
        w, inner = rule(t, i, w, g, inner)
        average = w if t == 0 else mass(t, i) * average + (1 - mass(t, i)) * w
        return (average if (t + 1) % every == 0 else w), (inner, average)

    return update


def rmsprop(rate, rho, mass, epsilon, centered=False):
    def update(t, i, w, g, slots):
        a, r, mu, e = _of(t, i, (rate, rho, mass, epsilon))
        v, mean, m = _zeros(slots, 3)
        v = r * v + (1 - r) * g * g
        mean = r * mean + (1 - r) * g
        spread = v - mean * mean if centered else v
        m = mu * m + a * g / tf.sqrt(spread + e)
        return w - m, (v, mean, m)

    return update


def adam(rate, beta_1, beta_2, epsilon, decay=None, amsgrad=False):
    """Adam, AMSGrad, and AdamW where there is a decay."""

    def update(t, i, w, g, slots):
        a, b1, b2, e = _of(t, i, (rate, beta_1, beta_2, epsilon))
        m, v, top = _zeros(slots, 3)
        if decay is not None:
            w = w - w * decay(t, i) * a
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = tf.maximum(top, v)
        scaled = a * tf.sqrt(1 - _power(b2, t + 1, w)) / (1 - _power(b1, t + 1, w))
        root = tf.sqrt(top if amsgrad else v)
        return w - scaled * m / (root + e), (m, v, top)

    return update


def adagrad(rate, epsilon, initial_accumulator_value):
    def update(t, i, w, g, slots):
        a, e = _of(t, i, (rate, epsilon))
        total = (initial_accumulator_value if slots is None else slots[0]) + g * g
        return w - a * g / tf.sqrt(total + e), (total,)

    return update


def adadelta(rate, rho, epsilon):
    def update(t, i, w, g, slots):
        a, r, e = _of(t, i, (rate, rho, epsilon))
        total, moved = _zeros(slots, 2)
        total = r * total + (1 - r) * g * g
        step = g * tf.sqrt(moved + e) / tf.sqrt(total + e)
        moved = r * moved + (1 - r) * step * step
        return w - a * step, (total, moved)

    return update


def adamax(rate, beta_1, beta_2, epsilon):
    def update(t, i, w, g, slots):
        a, b1, b2, e = _of(t, i, (rate, beta_1, beta_2, epsilon))
        m, u = _zeros(slots, 2)
        m = b1 * m + (1 - b1) * g
        u = tf.maximum(b2 * u, tf.abs(g))
        return w - a * m / ((1 - _power(b1, t + 1, w)) * (u + e)), (m, u)

    return update


def nadam(rate, beta_1, beta_2, epsilon):
    """Dozat 2016, with Keras' constants: 0.96, in float32 but for the product."""
    rounded = np.float32(0.96)

    def update(t, i, w, g, slots):
        a, b1, b2, e = _of(t, i, (rate, beta_1, beta_2, epsilon))
        m, v, product = (0.0, 0.0, 1.0) if slots is None else slots

        def mass(k, base=rounded):
            return b1 * (1 - 0.5 * _power(base, k, w))

        product = product * mass(t + 1, np.float64(0.96))
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        ahead = mass(t + 2) * m / (1 - product * mass(t + 2))
        now = (1 - mass(t + 1)) * g / (1 - product)
        root = tf.sqrt(v / (1 - _power(b2, t + 1, w)))
        return w - a * (ahead + now) / (root + e), (m, v, product)

    return update


def ftrl(rate, power, l1, l2, shrinkage, beta, initial_accumulator_value):
    """McMahan et al. 2013, with a linear term kept per weight."""

    def update(t, i, w, g, slots):
        a, p, one, two, s, b = _of(t, i, (rate, power, l1, l2, shrinkage, beta))
        total, linear = (initial_accumulator_value, 0.0) if slots is None else slots
        new = total + g * g
        sigma = (tf.pow(new, -p) - tf.pow(tf.cast(total, w.dtype), -p)) / a
        linear = linear + g + 2 * s * w - sigma * w
        quadratic = tf.pow(new, -p) / a + 2 * (two + b / (2 * a))
        clipped = tf.minimum(tf.maximum(linear, -one), one)
        return (clipped - linear) / quadratic, (new, linear)

    return update


def lion(rate, beta_1, beta_2):
    def update(t, i, w, g, slots):
        a, b1, b2 = _of(t, i, (rate, beta_1, beta_2))
        (m,) = _zeros(slots, 1)
        return w - a * tf.sign(b1 * m + (1 - b1) * g), (b2 * m + (1 - b2) * g,)

    return update


def adafactor(rate, exponent, epsilon_1, epsilon_2, threshold):
    """Shazeer and Stern 2018, algorithms 4 and 5, with relative steps."""

    def rms(x):
        return tf.sqrt(tf.reduce_mean(x * x))

    def update(t, i, w, g, slots):
        a, c, e1, e2, d = _of(t, i, (rate, exponent, epsilon_1, epsilon_2, threshold))
        k = tf.cast(t + 1, w.dtype)
        rho = tf.minimum(a, 1 / tf.sqrt(k))
        keep = 1 - tf.pow(k, c)
        squares = g * g + e1
        rows, columns = _zeros(slots, 2)
        if len(w.shape) >= 2:
            rows = keep * rows + (1 - keep) * tf.reduce_mean(squares, -1)
            columns = keep * columns + (1 - keep) * tf.reduce_mean(squares, -2)
            share = rows / tf.reduce_mean(rows, -1, keepdims=True)
            v = share[..., None] * columns[..., None, :]
        else:
            v = rows = keep * rows + (1 - keep) * squares
        u = g / tf.sqrt(v)
        u = u / tf.maximum(tf.ones_like(d), rms(u) / d)
        return w - tf.maximum(e2, rms(w)) * rho * u, (rows, columns)

    return update


def lamb(rate, beta_1, beta_2, epsilon):
    """You et al. 2020, algorithm 2."""

    def update(t, i, w, g, slots):
        a, b1, b2, e = _of(t, i, (rate, beta_1, beta_2, epsilon))
        m, v = _zeros(slots, 2)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        r = m / (1 - _power(b1, t + 1, w))
        r = r / (tf.sqrt(v / (1 - _power(b2, t + 1, w))) + e)
        ratio = tf.norm(w) / tf.norm(r)
        return w - ratio * a * r, (m, v)

    return update
