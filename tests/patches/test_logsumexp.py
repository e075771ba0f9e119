"""Logarithms of sums of exponentials: of nothing, and cumulative ones."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches.logsumexp import reduce_logsumexp
from far_ho_tf.patches.registry import REPLACED
from tests.helpers import assert_close, hyper

MODES = {
    "reverse": far.ReverseHG(),
    "forward": far.ForwardHG(),
    "graph": far.ReverseHG(jit_compile=False),
    "forward, graph": far.ForwardHG(jit_compile=False),
}


def check(mode, objective, starts):
    """Two steps of descent against differences of plain eager runs."""

    def outcome(rate):
        w = tf.Variable(starts, dtype=tf.float64)
        for _ in range(2):
            with tf.GradientTape() as tape:
                value = objective(tf.convert_to_tensor(w))
            w.assign_sub(rate * tape.gradient(value, w))
        return float(tf.reduce_sum(w * w))

    w = keras.Variable(np.float64(starts), dtype="float64", name="w")
    rate = hyper(0.05, "rate")
    problem = far.BilevelProblem(
        lambda: objective(tf.convert_to_tensor(w)),
        lambda: tf.reduce_sum(w * w),
        [w],
        far.GradientDescent(rate),
        [rate],
    )
    result = mode.compute(problem, 2)
    expected = (outcome(0.05001) - outcome(0.04999)) / 2e-5
    assert_close([result.outer_value], [outcome(0.05)], 1e-12)
    assert_close(result.hypergradients, [expected], 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_circle_loss_with_one_example_of_a_class(mode):
    x = np.random.RandomState(0).randn(4, 3)
    labels = np.array([0, 1, 1, 2])

    def loss(w):
        rows = tf.math.l2_normalize(tf.convert_to_tensor(x) * w, axis=-1)
        return keras.losses.Circle(dtype="float64")(labels, rows)

    check(MODES[mode], loss, [0.7, 0.4, -0.3])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative(mode, exclusive, reverse):
    def objective(w):
        sums = tf.math.cumulative_logsumexp(w, exclusive=exclusive, reverse=reverse)
        # One cotangent is zero where the training begins.
        return tf.reduce_sum((tf.exp(sums) - [0.0, np.exp(0.7), 0.5]) ** 2)

    check(MODES[mode], objective, [0.7, 0.4, -0.3])


@pytest.mark.parametrize(
    ("axis", "exclusive", "reverse"),
    list(itertools.product([0, 1, -1], [False, True], [False, True])),
)
def test_first_derivatives_of_cumulative_ones(axis, exclusive, reverse):
    x = tf.constant(10 * np.random.RandomState(0).randn(3, 4, 2))
    along = tf.constant(np.random.RandomState(1).randn(3, 4, 2))

    @tf.function
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            sums = tf.math.cumulative_logsumexp(x, axis, exclusive, reverse)
            ends = tf.math.is_finite(sums)
            total = tf.reduce_sum(tf.where(ends, sums * along, tf.zeros_like(sums)))
        own, _ = REPLACED["CumulativeLogsumexp"](
            sums.op, tf.where(ends, along, tf.zeros_like(along))
        )
        return tape.gradient(total, x), own

    found, own = both(x)
    np.testing.assert_allclose(found, own, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("axis", [None, 0, [0, 1], -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_values_of_sums(axis, keepdims):
    x = 10 * np.random.RandomState(0).randn(3, 4).astype("float32")
    x[1] = -np.inf
    x[:, 2] = -np.inf
    x[0, 0], x[2, 1] = np.inf, np.nan
    expected = tf.compat.v1.reduce_logsumexp(x, axis, keepdims)
    found = reduce_logsumexp(x, axis, keepdims)
    np.testing.assert_array_equal(found, expected)
    assert reduce_logsumexp is tf.reduce_logsumexp is tf.math.reduce_logsumexp


def test_derivatives_of_sums_of_nothing():
    x = tf.constant([-np.inf, -np.inf])
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_logsumexp(x)
    assert float(value) == -np.inf
    np.testing.assert_array_equal(tape.gradient(value, x), [0, 0])
