"""Bare tf.Variables and tf.Modules, against Keras variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers


class _Ridge(tf.Module):
    """A plain tf.Module; one of its weights is not trainable."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable([0.1, -0.2, 0.3], dtype=tf.float64, name="w")
        self.b = tf.Variable(0.5, dtype=tf.float64, name="b")
        self.fixed = tf.Variable(2.0, dtype=tf.float64, trainable=False, name="fixed")

    def __call__(self, x):
        return tf.linalg.matvec(x, self.w) * self.fixed + self.b


@pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)
@pytest.mark.parametrize("owner", ["module", "list", "mixed"])
def test_bare_variables_equal_keras_variables(owner, jit_compile):
    """The same ridge regression over tf.Variables and over Keras variables."""
    random = np.random.RandomState(0)
    data = random.randn(8, 3), random.randn(8)

    def solve(model, variables, penalty, rate):
        def inner(batch):
            x, y = batch
            squares = tf.reduce_sum(tf.square(model.w)) * penalty
            return tf.reduce_mean((model(x) - y) ** 2) + squares

        def outer(batch):
            return tf.reduce_mean(tf.abs(model(batch[0]) - batch[1]))

        problem = far.BilevelProblem(
            inner,
            outer,
            variables,
            far.Momentum(rate, 0.9),
            [penalty, rate],
            data,
            data,
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        return [mode.compute(problem, 5), mode.compute(problem, 5)]

    reference_model = _Ridge()
    for name in ("w", "b"):
        value = getattr(reference_model, name).numpy()
        setattr(reference_model, name, keras.Variable(value, name=name))
    expected, _ = solve(
        reference_model,
        [reference_model.w, reference_model.b],
        hyper(0.1, "penalty"),
        hyper(0.05, "rate"),
    )
    model = _Ridge()
    penalty = tf.Variable(0.1, dtype=tf.float64, name="penalty")
    rate = tf.Variable(0.05, dtype=tf.float64, name="rate")
    if owner == "mixed":
        penalty, model.b = hyper(0.1, "penalty"), keras.Variable(0.5, dtype="float64")
    variables = model if owner == "module" else [model.w, model.b]
    for result in solve(model, variables, penalty, rate):
        assert_close(result.hypergradients, expected.hypergradients, 1e-12)
        assert_close([result.outer_value], [expected.outer_value], 1e-12)
    # s_T is left in the variables, and the hyperparameters are left alone.
    assert_close([model.w], [reference_model.w], 1e-12)
    assert (float(tf.convert_to_tensor(penalty)), float(rate)) == (0.1, 0.05)


def test_a_module_that_holds_keras_layers_and_variables():
    """tf.Module's own `trainable_variables` knows nothing of Keras."""

    class Head(tf.Module):
        def __init__(self):
            super().__init__()
            self.layers = [keras.layers.Dense(2, name="head")]
            self.layers[0].build((None, 3))

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.norm.build((None, 3))
            self.scale = keras.Variable(2.0, name="scale")
            self.shift = tf.Variable(1.0, name="shift")
            self.fixed = tf.Variable(1.0, name="fixed", trainable=False)
            self.head, self.same_head = [Head()] * 2

        def __call__(self, x):
            x = self.norm(x, training=True) * self.scale + self.shift * self.fixed
            return self.head.layers[0](x)

    network = Network()
    x = np.random.RandomState(0).randn(6, 3).astype("float32")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_mean(network(x) ** 2),
        lambda: tf.reduce_mean(network(x)),
        network,
        far.GradientDescent(rate),
        [rate],
    )
    names = sorted(variable.name for variable in problem.variables)
    assert names == ["beta", "bias", "gamma", "kernel", "scale", "shift:0"]
    far.ReverseHG(jit_compile=False).compute(problem, 3)
    assert float(network.scale) != 2.0
    assert float(network.shift) != 1.0
