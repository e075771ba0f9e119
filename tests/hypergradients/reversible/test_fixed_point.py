"""Integer arithmetic that can be undone."""

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from far_ho_tf.hypergradients.reversible import fixed_point

MOMENTA = [0.9, 0.5, 0.99, 1.0, 0.3, 0.001, 0.7351]


def pair(momentum):
    return fixed_point.ratio(tf.constant(momentum, tf.float64))


def test_ratios_are_the_nearest():
    random = np.random.RandomState(0)
    values = [*MOMENTA, 0.0, 1 / 3, 1e-5, float(np.float32(0.9)), *random.rand(200)]
    numerators, denominators = fixed_point.ratio(tf.constant(values, tf.float64))
    for value, n, d in zip(values, numerators, denominators, strict=True):
        best = Fraction(value).limit_denominator(fixed_point.LARGEST)
        assert (int(n), int(d)) == (best.numerator, best.denominator)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_products_are_undone(momentum, jit_compile):
    """Until the buffer is full; with negative and positive numbers, and spills."""
    random = np.random.RandomState(0)
    integers = tf.constant(random.randint(-(2**60) + 1, 2**60, 1000), tf.int64)
    n, d = pair(momentum)
    multiply = tf.function(
        fixed_point.multiply, autograph=False, jit_compile=jit_compile
    )
    buffer, bound, spilled = tf.zeros_like(integers), tf.constant(1, tf.int64), []
    moved, steps = integers, 3 if momentum == 1.0 else int(60 / -np.log2(momentum))
    for _ in range(min(steps, 500)):
        full = int(bound) >= fixed_point.FULL
        if full:
            low, buffer = fixed_point.spill(buffer)
            bound = bound // 2**fixed_point.SPILLED + 1
        spilled.append(low if full else None)
        before = moved.numpy()
        moved, buffer = multiply(moved, buffer, n, d)
        bound = fixed_point.next_bound(bound, n, d)
        assert (
            0 <= int(tf.reduce_min(buffer)) <= int(tf.reduce_max(buffer)) < int(bound)
        )
        # The value, but for the digit that was filled up.
        exactly = before.astype(object) * int(n) / int(d)
        assert np.abs(moved.numpy() - exactly).max() <= 2.0 * fixed_point.LARGEST
    if momentum not in (1.0, 0.99):
        assert any(low is not None for low in spilled)
    for low in reversed(spilled):
        moved, buffer = multiply(moved, buffer, d, n)
        if low is not None:
            buffer = fixed_point.refill(buffer, low)
    np.testing.assert_array_equal(moved, integers)
    assert not np.any(buffer)


@pytest.mark.parametrize("bits", [1, 3, 16])
def test_division(bits):
    random = np.random.RandomState(0)
    dividend = random.randint(-(2**51), 2**51, 100_000)
    divisor = random.randint(1, 2**bits + 1, 100_000)
    dividend[:1000] = dividend[:1000] // divisor[:1000] * divisor[:1000]
    dividend[1000:2000] = 2**51 - 1 - np.arange(1000)
    dividend[2000:3000] = np.arange(1000) - 2**51
    quotient, rest = fixed_point._divide(tf.constant(dividend), tf.constant(divisor))
    np.testing.assert_array_equal(quotient, dividend // divisor)
    np.testing.assert_array_equal(rest, dividend % divisor)


def test_encoding():
    values = tf.constant([0.0, 1.0, -0.3, 2.0**-46, -(2.0**13)], tf.float64)
    kept = fixed_point.decode(fixed_point.encode(values))
    np.testing.assert_allclose(kept, values, atol=2.0**-46, rtol=0)
    assert int(fixed_point.encode(-0.5 * 2.0**-46)) == 0
