"""Indices out of range, and assertions, under XLA: an error, as without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close

ROWS = np.random.RandomState(0).randn(5, 3)

# What each makes of five rows of weights and the number of one.
READING = {
    "gather": lambda w, i: tf.gather(w, [[0, 1], [i, 0]]),
    "gather, negative": lambda w, i: tf.gather(w, [0, 2 - i]),
    "gather, axis": lambda w, i: tf.gather(w, [0, i], axis=-1),
    "gather, batch": lambda w, i: tf.gather(
        w, tf.stack([[0, 1, 1]] * 4 + [[0, i, 1]]), axis=1, batch_dims=1
    ),
    "gather_nd": lambda w, i: tf.gather_nd(w, [[0, 1], [i, 0]]),
    "gather_nd, rows": lambda w, i: tf.gather_nd(w, [[[0], [i]]]),
    "keras.ops.take": lambda w, i: keras.ops.take(w, [0, i], axis=0),
    "take_along_axis": lambda w, i: keras.ops.take_along_axis(
        w, tf.stack([[0, 1, 1], [0, i, 1]]), axis=0
    ),
    "embedding_lookup": lambda w, i: tf.nn.embedding_lookup(w, [0, i]),
    "tensor_scatter_nd_update": lambda w, i: tf.tensor_scatter_nd_update(
        w, [[i]], w[:1]
    ),
    "tensor_scatter_nd_add": lambda w, i: tf.tensor_scatter_nd_add(w, [[i]], w[:1]),
    "scatter_nd": lambda w, i: tf.scatter_nd([[i]], w[:1], [5, 3]),
    "unsorted_segment_sum": lambda w, i: tf.math.unsorted_segment_sum(
        w, [0, 1, i, 0, -1], 5
    ),
    "unsorted_segment_mean": lambda w, i: tf.math.unsorted_segment_mean(
        w, segment_ids=[0, 1, i, 0, -1], num_segments=5
    ),
    "keras.ops.segment_sum": lambda w, i: keras.ops.segment_sum(
        w, tf.stack([0, 1, i, 0, 1]), 5
    ),
}


def problem(read, index):
    w = tf.Variable(ROWS, name="w")
    rate = far.Hyperparameter(0.05, dtype="float64", name="rate")

    def loss(batch):
        return tf.reduce_sum(read(tf.convert_to_tensor(w), batch[0]) ** 2)

    return far.BilevelProblem(
        loss,
        lambda: tf.reduce_sum(w**3),
        *([w], far.GradientDescent(rate), [rate]),
        inner_data=np.full(4, index, np.int32),
    )


@pytest.mark.parametrize("name", READING)
def test_an_index_out_of_range_is_an_error_under_xla(name):
    mode = far.ReverseHG(jit_compile=True)
    with pytest.raises(far.NonFiniteError, match=r"without XLA, it fails: .*(ind|ids)"):
        mode.compute(problem(READING[name], 9), 2)


@pytest.mark.parametrize("step", [0, 3])
def test_without_xla_the_users_line_is_named(step):
    w = tf.Variable(ROWS, name="w")
    rate = far.Hyperparameter(0.05, dtype="float64", name="rate")

    def loss(batch):
        return tf.reduce_sum(tf.gather(w, batch) ** 2)

    rows = tf.one_hot([step], 5, 9, 2, dtype=tf.int32)[0]
    made = far.BilevelProblem(
        loss,
        lambda: tf.reduce_sum(w**3),
        *([w], far.GradientDescent(rate), [rate]),
        inner_data=lambda step: rows[step : step + 1],
    )
    line = loss.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match=rf"`inner_objective` .* in line {line} of"):
        far.ReverseHG(jit_compile=False).compute(made, 5)


@pytest.mark.parametrize("name", READING)
def test_indices_in_range_are_what_they_were(name):
    plain, compiled = (
        far.ReverseHG(jit_compile=flag).compute(problem(READING[name], 2), 3)
        for flag in (False, True)
    )
    assert_close(compiled.hypergradients, plain.hypergradients, 1e-12)
    assert_close([compiled.outer_value], [plain.outer_value], 1e-12)


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
@pytest.mark.parametrize("part", ["inner_objective", "outer_objective"])
def test_a_token_that_is_not_in_the_vocabulary(mode, part):
    keras.utils.set_random_seed(0)
    tokens = np.random.RandomState(0).randint(0, 10, (6, 4))
    bad = np.where(np.arange(24).reshape(6, 4) == 13, 10, tokens)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(10, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    rate = far.Hyperparameter(0.05, name="rate")

    def loss(tokens):
        return tf.reduce_mean((model(tokens) - 1.0) ** 2)

    data = (bad, tokens) if part == "inner_objective" else (tokens, bad)
    with pytest.raises(far.NonFiniteError, match=r"indices\[3,1\] = 10 is not in"):
        mode.compute(
            far.BilevelProblem(loss, loss, model, far.Momentum(rate), [rate], *data),
            3,
        )


@pytest.mark.parametrize("part", ["inner_objective", "outer_objective"])
def test_assertions_hold_by_default(part):
    w = tf.Variable(ROWS, name="w")
    rate = far.Hyperparameter(0.05, dtype="float64", name="rate")

    def plain():
        return tf.reduce_sum(w**2)

    def asserting(limit):
        def loss():
            tf.debugging.assert_less(tf.reduce_max(w), tf.constant(limit, w.dtype))
            return tf.reduce_sum(w**2)

        return loss

    def made(limit):
        losses = asserting(limit), plain
        if part == "outer_objective":
            losses = losses[::-1]
        return far.BilevelProblem(*losses, [w], far.GradientDescent(rate), [rate])

    result = far.ReverseHG().compute(made(100.0), 2)
    assert result.status.compiler == "graph"
    assert "XLA leaves assertions out" in result.status.reason
    with pytest.raises(ValueError, match=r"(?s)must be less|Condition x < y"):
        far.ReverseHG().compute(made(0.0), 2)
    compiled = far.ReverseHG(jit_compile=True).compute(made(0.0), 2)
    assert np.isfinite(compiled.outer_value)  # Who asks for XLA gets it.


def test_what_xla_has_no_kernel_for_is_named():
    w = tf.Variable(ROWS, name="w")
    rate = far.Hyperparameter(0.05, dtype="float64", name="rate")

    def loss():
        tf.print("first:", w[0], output_stream="file:///dev/null")
        return tf.reduce_sum(w**2)

    made = far.BilevelProblem(loss, loss, [w], far.GradientDescent(rate), [rate])
    status = far.ReverseHG().compute(made, 2).status
    assert status.reason.startswith("XLA cannot compile it: it has no kernel for ")
    assert "StringFormat" in status.reason
