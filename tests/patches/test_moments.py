"""Moments: their second derivatives, and the names that they have elsewhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches.moments import moments, stopped_moments
from tests.differences import normals
from tests.helpers import assert_close, hyper
from tests.known_faults import problem_with
from tests.tapes import error_of_second_derivative

normal = normals()
X = np.random.RandomState(0).randn(6, 3)


def hypergradients(loss, variables, mode):
    """Of two steps, in the rate, and the difference of plain eager runs."""
    starts = [variable.numpy() for variable in variables]

    def outcome(rate):
        for variable, start in zip(variables, starts, strict=True):
            variable.assign(start)
        for _ in range(2):
            with tf.GradientTape() as tape:
                value = loss()
            for variable, gradient in zip(
                variables, tape.gradient(value, variables), strict=True
            ):
                variable.assign_sub(rate * gradient)
        return float(loss())

    expected = (outcome(0.3001) - outcome(0.2999)) / 2e-4
    for variable, start in zip(variables, starts, strict=True):
        variable.assign(start)
    rate = hyper(0.3, "rate")
    problem = far.BilevelProblem(
        loss, loss, variables, far.GradientDescent(rate), [rate]
    )
    return mode.compute(problem, 2).hypergradients, [expected]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()], ids=str)
def test_hypergradients(version, mode):
    moments = getattr(tf.compat, version).nn.moments
    w = tf.Variable([0.7, 0.4, -0.3], dtype=tf.float64)

    def loss():
        made = tf.tanh(X * w)
        mean, variance = moments(made, [0])
        return tf.reduce_mean((made - mean) ** 3 / (variance + 0.1) + mean)

    found, expected = hypergradients(loss, [w], mode)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("keeps", [{"keepdims": True}, {"keep_dims": True}, {}])
def test_arguments_of_the_first_version(keeps):
    mean, variance = tf.compat.v1.nn.moments(X, [0], None, "name", **keeps)
    axes = {"axis": 0, "keepdims": bool(keeps)}
    np.testing.assert_allclose(mean, X.mean(**axes), rtol=1e-12)
    np.testing.assert_allclose(variance, X.var(**axes), rtol=1e-12)


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization"])
def test_legacy_keras(kind):
    legacy = pytest.importorskip("tf_keras")
    layer = getattr(legacy.layers, kind)(dtype="float64", epsilon=0.1)
    dense = legacy.layers.Dense(4, "tanh", dtype="float64")
    model = legacy.Sequential([dense, layer])
    model.build((None, 3))
    dense.kernel.assign(np.random.RandomState(1).randn(3, 4))

    def loss():
        return tf.reduce_mean((model(X, training=True) - 0.3) ** 3)

    weights = [dense.kernel, layer.gamma]
    found, expected = hypergradients(loss, weights, far.ReverseHG())
    assert_close(found, expected, 1e-6)


class Normalization(tf.Module):
    """As legacy Keras has it: its moving average is a `tf.Variable`."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable([0.7, 0.4, -0.3], dtype=tf.float64, name="w")
        self.average = tf.Variable(
            tf.zeros(3, tf.float64), trainable=False, name="average"
        )

    def __call__(self, training):
        made = tf.tanh(X * self.w)
        mean, variance = tf.compat.v2.nn.moments(made, [0])
        if training:
            self.average.assign_sub(0.1 * (self.average - mean))
        else:
            mean = self.average
        return tf.reduce_mean((made - mean) ** 3 / (variance + 0.1) + mean)


def test_a_moving_average_that_no_objective_uses():
    model = Normalization()
    found, expected = hypergradients(lambda: model(True), [model.w], far.ReverseHG())
    assert_close(found, expected, 1e-6)


def test_the_moving_average_after_a_run():
    averages = []
    for by_hand in (True, False):
        model = Normalization()
        if by_hand:
            for _ in range(2):
                with tf.GradientTape() as tape:
                    value = model(True)
                model.w.assign_sub(0.3 * tape.gradient(value, model.w))
        else:
            rate = hyper(0.3, "rate")
            problem = far.BilevelProblem(
                lambda model=model: model(True),
                lambda model=model: model(True),
                model,
                far.GradientDescent(rate),
                [rate],
            )
            far.ReverseHG().compute(problem, 2)
        averages.append(model.average.numpy())
    assert np.all(averages[0] != 0)
    np.testing.assert_allclose(*averages, rtol=1e-12)


def test_a_moving_average_that_is_used():
    model, rate = Normalization(), hyper(0.3, "rate")
    with pytest.raises(
        ValueError,
        match=r"`inner_objective` assigns .*`average`.*`outer_objective` returns",
    ):
        far.BilevelProblem(
            lambda: model(True),
            lambda: model(False),
            model,
            far.GradientDescent(rate),
            [rate],
        )


class TestMendedMoments:
    def test_tensorflow_drops_a_term(self):
        x = normal(4, 3)
        wrong = error_of_second_derivative(lambda x: stopped_moments(x, [0])[1], x)
        right = error_of_second_derivative(lambda x: moments(x, [0])[1], x)
        assert wrong > 0.05
        assert right < 1e-8

    @pytest.mark.parametrize("keepdims", [False, True])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_values_and_gradients_stay_the_same(self, dtype, keepdims):
        x = tf.constant(normal(5, 4, 3, dtype=dtype))
        results = []
        for function in (moments, stopped_moments):
            with tf.GradientTape() as tape:
                tape.watch(x)
                mean, variance = function(x, [0, 1], keepdims=keepdims)
                total = tf.reduce_sum(mean * variance)
            results.append((mean, variance, tape.gradient(total, x)))
        mended, original = results
        assert mended[0].numpy().tolist() == original[0].numpy().tolist()
        assert mended[1].numpy().tolist() == original[1].numpy().tolist()
        precision = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
        np.testing.assert_allclose(
            mended[2].numpy(), original[2].numpy(), atol=precision
        )

    @pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
    @pytest.mark.parametrize(
        "layer",
        [
            keras.layers.BatchNormalization,
            keras.layers.LayerNormalization,
            lambda **options: keras.layers.GroupNormalization(2, **options),
        ],
    )
    def test_keras_layers_are_right(self, layer, jit_compile):
        layer = layer(dtype="float64")
        x = normal(4, 6) * np.arange(1, 7)
        layer.build(x.shape)
        weights = np.arange(24.0).reshape(4, 6)

        def function(x):
            scope = keras.StatelessScope()
            with scope:
                return layer(weights * x, training=True)

        assert error_of_second_derivative(function, x, jit_compile) < 1e-6

    def test_a_copy_from_before_the_import_is_refused(self):
        start = np.arange(3.0, dtype="float32")
        with pytest.raises(ValueError, match=r"holds StopGradient.*full name"):
            problem_with(lambda x: stopped_moments(x * x, [0])[1], start)
