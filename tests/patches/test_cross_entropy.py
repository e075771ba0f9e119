"""Labels that do not add up to one, against differences of plain runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.differences import WIDTH, turns
from tests.helpers import assert_close


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
def test_labels_that_do_not_add_up_to_one(mode):
    """Training goes by a gradient that is none; its derivative is the run's."""
    start = np.array([[0.3, -0.2, 0.5]])
    labels = np.array([[0.5, 0.2, 0.6]])

    def loss(logits, weight):
        return tf.reduce_sum(
            tf.nn.softmax_cross_entropy_with_logits(weight * labels, logits)
        )

    def run(weight):
        w, weight = tf.constant(start), tf.constant(weight, tf.float64)
        for _ in range(3):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = loss(w, weight)
            w -= 0.1 * tape.gradient(value, w)
        return float(loss(w, weight))

    w = keras.Variable(start, dtype="float64", name="w")
    weight = far.Hyperparameter(0.9, name="weight", dtype="float64")
    problem = far.BilevelProblem(
        lambda: loss(w.value, weight.value),
        lambda: loss(w.value, weight.value),
        *([w], far.GradientDescent(0.1), [weight]),
    )
    result = mode.compute(problem, 3)
    exact = (run(0.9 + WIDTH) - run(0.9 - WIDTH)) / (2 * WIDTH)
    assert_close([result.outer_value], [run(0.9)], 1e-12)
    assert_close(result.hypergradients, [exact], 1e-7)


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
def test_labels_in_a_loop(mode):
    """Where training and its derivative cannot be parted: only what is one is right."""
    w = keras.Variable([[0.3, -0.2, 0.5]], dtype="float64", name="w")
    weight = far.Hyperparameter(0.9, name="weight", dtype="float64")

    def made(labels, count):
        def loss(turn):
            labelled = tf.nn.softmax_cross_entropy_with_logits(labels, w * (turn + 1))
            return weight * tf.reduce_sum(labelled)

        return far.BilevelProblem(
            lambda: turns(loss, count, tf.zeros([], tf.float64)),
            lambda: tf.reduce_sum(w**3),
            *([w], far.GradientDescent(0.1), [weight]),
        )

    with pytest.raises(ValueError, match="softmax_cross_entropy_with_logits in a loop"):
        mode.compute(made(np.array([[0.5, 0.2, 0.6]]), 2), 3)
    found, expected = (
        mode.compute(made(np.array([[0.5, 0.2, 0.3]]), count), 3, write_back=False)
        for count in (2, -2)
    )
    assert_close(found.hypergradients, expected.hypergradients, 1e-9)
