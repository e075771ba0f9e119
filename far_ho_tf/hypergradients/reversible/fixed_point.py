"""Momentum in integers: a training step that can be undone bit for bit.

Weights are int64 c, which stand for c · 2^−46, velocities c · 2^−46 or, where gradients
are small, a smaller unit. What is added can be taken away again; only the
multiplication of a velocity by the momentum, a ratio n/d, loses digits. They are pushed
to a buffer, an int64 for each weight, from which the multiplication refills the digit
that it frees, so that the buffer grows by log2(d/n) bits only. When it is nearly full,
32 bits of each are spilled.

The digit that is refilled, of radix d, is noise in the velocity: the smaller d, the
better. n/d is the nearest ratio to the momentum with d up to 2^16; that to 0.9 is 9/10.

Source: Maclaurin et al. 2015, section 2.3 and algorithm 3.
"""

import numpy as np
import tensorflow as tf

POINT = 46  # Binary digits after the point.
UNIT = 2.0**-POINT
RANGE = 1 << 60  # Of the integers: weights are below 2^14.
LEAST = 43  # Binary digits of the largest element of the first gradient, or more.
LARGEST = 1 << 16  # Of the denominators.
SPILLED = 32
FULL = 1 << 35  # Of the buffers: a product with a denominator stays below 2^51.

_LOW = 26  # Binary digits of the lower part of an integer.
# 1.5 · 2^52 as a float and its bits: the last digit of a float around it is 1.
_ONES = 1.5 * 2.0**52
_BITS = int(np.float64(_ONES).view(np.int64))


def encode(values: tf.Tensor, unit: float | tf.Tensor = UNIT) -> tf.Tensor:
    """Floats as multiples of a unit, a power of two, rounded towards zero."""
    return tf.cast(tf.cast(values, tf.float64) / unit, tf.int64)


def decode(
    integers: tf.Tensor, dtype: tf.DType = tf.float64, unit: float | tf.Tensor = UNIT
) -> tf.Tensor:
    """The floats that integers stand for."""
    return tf.cast(tf.cast(integers, tf.float64) * unit, dtype)


def unit_of(largest: tf.Tensor) -> tf.Tensor:
    """The unit of velocities: 2^−46, or less where the first gradient is small.

    Velocities stay in their range until they are 2^17 times as large.

    Args:
        largest: float64 scalar, the largest element of the first velocity.

    Returns:
        float64 scalar, a power of two from 2^−1000 on.
    """
    digits = tf.math.floor(tf.math.log(largest) / np.log(2.0)) - LEAST
    digits = tf.where(largest > 0.0, digits, 0.0)
    exponent = tf.cast(tf.clip_by_value(digits, -1000.0, -POINT), tf.int64)
    return tf.bitcast((exponent + 1023) * 2**52, tf.float64)


def multiply(
    integers: tf.Tensor, buffer: tf.Tensor, numerator: tf.Tensor, denominator: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Multiplies by n/d; the buffer takes what is lost.

    Args:
        integers: int64 tensor, between −2^60 and 2^60.
        buffer: Of its shape, from 0, below `FULL`.
        numerator, denominator: int64 scalars, 0 < n ≤ d.

    Returns:
        The product and the new buffer. The same with n and d exchanged undoes it.
    """
    high = tf.bitwise.right_shift(integers, tf.constant(_LOW, tf.int64))
    low = tf.bitwise.bitwise_and(integers, tf.constant((1 << _LOW) - 1, tf.int64))
    high, digit = _divide(high, denominator)
    low, digit = _divide(digit * 2**_LOW + low, denominator)
    quotient = high * 2**_LOW + low
    buffer, rest = _divide(buffer * denominator + digit, numerator)
    return quotient * numerator + rest, buffer


def spill(buffer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The low 32 bits of a buffer as int32, and the rest of it."""
    low = tf.bitwise.bitwise_and(buffer, tf.constant((1 << SPILLED) - 1, tf.int64))
    rest = tf.bitwise.right_shift(buffer, tf.constant(SPILLED, tf.int64))
    return tf.cast(low - 2**31, tf.int32), rest


def refill(buffer: tf.Tensor, spilled: tf.Tensor) -> tf.Tensor:
    """Undoes `spill`."""
    return buffer * 2**SPILLED + (tf.cast(spilled, tf.int64) + 2**31)


def next_bound(
    bound: tf.Tensor, numerator: tf.Tensor, denominator: tf.Tensor
) -> tf.Tensor:
    """A bound on the buffer after a multiplication: all B < b before, B' < b'."""
    return (bound * denominator - 1) // numerator + 1


def ratio(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The nearest ratios n/d with d up to 2^16, by continued fractions.

    Args:
        values: float64 tensor, in [0, 1].

    Returns:
        n and d, int64 tensors.
    """
    zero, one = tf.zeros_like(values), tf.ones_like(values)
    before, last = (zero, one), (one, zero)  # Pairs (n, d) of two convergents.
    rest, best = values, (tf.round(values), one)
    for _ in range(24):  # Denominators grow at least as Fibonacci's numbers.
        whole = tf.floor(rest)
        fits = tf.floor((LARGEST - before[1]) / tf.maximum(last[1], 1.0))
        whole = tf.where(last[1] > 0.0, tf.minimum(whole, fits), whole)
        now = tuple(whole * new + old for new, old in zip(last, before, strict=True))
        nearer = _distance(now, values) < _distance(best, values)  # pyright: ignore[reportArgumentType]
        best = tuple(tf.where(nearer, n, b) for n, b in zip(now, best, strict=True))
        before, last = last, now
        fraction = rest - whole
        # An end: exact, or cut by the bound, where the next quotient is 0 at most.
        rest = tf.where(fraction > 0.0, 1.0 / tf.maximum(fraction, 1e-12), 0.0)
    return tuple(tf.cast(number, tf.int64) for number in best)  # pyright: ignore[reportReturnType]


def _distance(pair: tuple[tf.Tensor, tf.Tensor], values: tf.Tensor) -> tf.Tensor:
    numerator, denominator = pair
    return tf.where(
        denominator > 0.0,
        tf.abs(values - numerator / tf.maximum(denominator, 1.0)),
        float("inf"),
    )


def _divide(dividend: tf.Tensor, divisor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Quotient, rounded down, and remainder.

    By floats, as the processor divides integers many times more slowly, and turns
    them into floats and back one by one: beside 1.5 · 2^52 the bits of a float count.

    Args:
        dividend: int64 tensor, between −2^51 and 2^51.
        divisor: int64 scalar, from 1 to `LARGEST`.
    """
    floats = tf.bitcast(dividend + _BITS, tf.float64) - _ONES
    nearest = floats * (1.0 / tf.cast(divisor, tf.float64)) + _ONES
    quotient = tf.bitcast(nearest, tf.int64) - _BITS
    rest = dividend - quotient * divisor
    above = tf.bitwise.right_shift(rest, tf.constant(63, tf.int64))  # −1 or 0.
    return quotient + above, rest + tf.bitwise.bitwise_and(above, divisor)
