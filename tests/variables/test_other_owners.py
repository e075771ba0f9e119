"""Modules of other libraries as `variables`, where these are installed."""

import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper

NUM_STEPS = 4
RATE = 0.125  # In float32, as legacy Keras keeps it, too.
RANDOM = np.random.RandomState(0)
X, Y = RANDOM.randn(8, 3), RANDOM.randn(8, 1)


class _Holder(tf.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts


def check(owner, loss, trained, frozen):
    """Weights and hypergradient as of plain steps on the trained variables alone.

    Args:
        owner: What is given as `variables`.
        loss: Callable() -> scalar, both objectives.
        trained, frozen: Lists of all of its variables.
    """
    variables = [*trained, *frozen]
    start = [variable.numpy() for variable in variables]

    def put_back():
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)

    def plain(rate):
        put_back()
        for _ in range(NUM_STEPS):
            with tf.GradientTape() as tape:
                value = loss()
            for variable, gradient in zip(
                trained, tape.gradient(value, trained), strict=True
            ):
                variable.assign_sub(rate * gradient)
        return float(loss())

    slope = (plain(RATE + 1e-6) - plain(RATE - 1e-6)) / 2e-6
    value = plain(RATE)
    expected = [variable.numpy() for variable in variables]
    put_back()
    rate = hyper(RATE, "rate")
    problem = far.BilevelProblem(
        loss, loss, owner, far.GradientDescent(rate), hyperparameters=[rate]
    )
    for mode in (far.ReverseHG, far.ForwardHG):
        result = mode(jit_compile=False).compute(problem, NUM_STEPS)
        assert_close([result.outer_value], [value], 1e-10)
        assert_close(result.hypergradients, [slope], 1e-6)
        assert_close([variable.numpy() for variable in variables], expected, 1e-10)
    for variable, begun in zip(variables, start, strict=True):
        assert np.all(variable.numpy() == begun) == any(variable is v for v in frozen)


def test_a_frozen_layer_of_legacy_keras():
    """As under its own `fit`, too."""
    keras = pytest.importorskip("tf_keras")
    keras.backend.set_floatx("float64")
    model = keras.Sequential(
        [keras.layers.Dense(4, "tanh"), keras.layers.Dense(3), keras.layers.Dense(1)]
    )
    model.build((None, 3))
    model.layers[0].trainable = False
    frozen = model.layers[0].weights
    trained = model.layers[1].weights + model.layers[2].weights
    start = [weight.numpy() for weight in model.weights]
    model.compile(keras.optimizers.legacy.SGD(RATE), "mse")
    model.fit(X, Y, batch_size=8, epochs=NUM_STEPS, verbose=0)
    fitted = [weight.numpy() for weight in model.weights]
    for owner in (model, _Holder([model])):
        model.set_weights(start)
        check(owner, lambda: tf.reduce_mean((model(X) - Y) ** 2), trained, frozen)
        assert_close([weight.numpy() for weight in model.weights], fitted, 1e-12)


def test_a_module_of_sonnet():
    """Which has flags of variables only."""
    sonnet = pytest.importorskip("sonnet")

    class Scaled(sonnet.Module):
        def __init__(self):
            super().__init__()
            self.linear = sonnet.Linear(1)
            self.flatten = sonnet.Flatten()  # Has none: its list raises.
            self.scale = tf.Variable(
                tf.constant(2.0, tf.float64), trainable=False, name="scale"
            )

        def __call__(self, x):
            return self.scale * self.linear(self.flatten(x))

    model = Scaled()
    x = tf.constant(X)
    model(x)
    check(
        model,
        lambda: tf.reduce_mean((model(x) - Y) ** 2),
        [model.linear.b, model.linear.w],
        [model.scale],
    )


def test_variables_and_distributions_of_tensorflow_probability():
    probability = pytest.importorskip("tensorflow_probability")
    positive = probability.bijectors.Softplus()

    def transformed(value, **options):
        value = tf.constant(value, tf.float64)
        return probability.util.TransformedVariable(value, positive, **options)

    mean = tf.Variable(tf.constant(0.5, tf.float64))
    scale = transformed(1.0, name="scale")
    fixed = transformed(0.7, trainable=False, name="fixed")
    owner = _Holder(probability.distributions.Normal(mean, scale), [fixed])

    def loss():
        normal = owner.parts[0]
        return -tf.reduce_mean(normal.log_prob(Y * tf.convert_to_tensor(fixed)))

    check(
        owner,
        loss,
        [mean, scale.pretransformed_input],
        [fixed.pretransformed_input],
    )


def test_parameters_of_gpflow():
    gpflow = pytest.importorskip("gpflow")
    model = gpflow.models.GPR((X, Y), gpflow.kernels.SquaredExponential())
    gpflow.set_trainable(model.kernel.variance, False)
    free = model.kernel.lengthscales, model.likelihood.variance
    check(
        model,
        lambda: model.training_loss() / 10.0,
        [parameter.unconstrained_variable for parameter in free],
        [model.kernel.variance.unconstrained_variable],
    )
