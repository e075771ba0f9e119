"""Penalties whose factors are hyperparameters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper

X = np.random.RandomState(0).randn(10, 3)
Y = np.random.RandomState(1).randn(10, 2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (far.regularizers.L2(0.3), keras.regularizers.L2(0.3)),
        (far.regularizers.L1(0.3), keras.regularizers.L1(0.3)),
    ],
)
def test_values_are_those_of_keras(ours, theirs):
    w = X.astype("float32")
    np.testing.assert_allclose(ours(w), theirs(w), rtol=1e-6)
    assert type(ours).from_config(ours.get_config()).get_config() == ours.get_config()


@pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])
@pytest.mark.parametrize("kind", [far.regularizers.L2, far.regularizers.L1])
def test_one_step_by_hand(kind, method):
    """w_1 = w_0 − η (g + λ r'(w_0)) for each weight, so dE/dλ = −η ∇E r'(w_0)."""
    factors = hyper(np.linspace(0.1, 0.6, 6).reshape(3, 2), "factors")
    scalar = hyper(0.2, "scalar")
    layer = keras.layers.Dense(
        2,
        kernel_regularizer=kind(factors),
        bias_regularizer=kind(scalar),
        dtype="float64",
    )
    layer.build((None, 3))
    layer.set_weights([X[:3, :2], np.array([0.5, -0.25])])
    kernel, bias = layer.get_weights()

    def loss():
        return tf.reduce_mean(tf.square(layer(X) - Y))

    problem = far.BilevelProblem(
        lambda: loss() + sum(layer.losses),
        loss,
        layer,
        far.GradientDescent(0.1),
        [factors, scalar],
    )
    result = method(jit_compile=False).compute(problem, 1)
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [w.value for w in layer.trainable_weights])
    slope = (lambda w: 2 * w) if kind is far.regularizers.L2 else np.sign
    expected = [
        -0.1 * gradients[0] * slope(kernel),
        -0.1 * np.sum(gradients[1] * slope(bias)),
    ]
    assert_close(result.hypergradients, expected, 1e-12)


def test_a_callable_that_reads_a_hyperparameter():
    log_decay = far.Hyperparameter(np.log(0.25), dtype="float64", name="log_decay")
    regularizer = far.regularizers.L2(lambda: tf.exp(log_decay))
    with tf.GradientTape() as tape:
        tape.watch(log_decay.value)
        penalty = regularizer(tf.constant([3.0, 4.0]))
    assert_close([penalty, tape.gradient(penalty, log_decay.value)], [6.25, 6.25], 1e-6)
    assert regularizer.get_config() == {"l2": pytest.approx(0.25)}


@pytest.mark.parametrize("factor", ["l2", None, True])
def test_a_factor_of_another_kind(factor):
    with pytest.raises(ValueError, match="factor of L1 must be finite numbers"):
        far.regularizers.L1(factor)


@pytest.mark.parametrize(
    "factor",
    [
        *(-0.1, np.nan, [[0.1], [0.1, 0.2]], np.inf),
        *(tf.constant("a"), tf.constant(True), tf.constant(1j), tf.constant(np.nan)),
    ],
)
def test_a_factor_that_is_no_penalty(factor):
    with pytest.raises(ValueError, match="factor of L2 must"):
        far.regularizers.L2(factor)


@pytest.mark.parametrize("function", [lambda: None, lambda step: step])
def test_a_callable_that_fails(function):
    with pytest.raises(ValueError, match=r"factor of L2 must .* which fails with"):
        far.regularizers.L2(function)(tf.ones(3))


def test_numbers_keep_their_digits():
    penalty = far.regularizers.L2(0.1)(tf.constant([1.0], tf.float64))
    assert float(penalty) == 0.1


def test_a_shape_that_does_not_fit():
    regularizer = far.regularizers.L2(far.Hyperparameter([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"The factor of L2 .* \(3, 2\)"):
        regularizer(tf.ones((3, 2)))


def test_a_model_with_it_can_be_saved(tmp_path):
    decay = far.Hyperparameter(0.25, name="decay")
    layer = keras.layers.Dense(2, kernel_regularizer=far.regularizers.L2(decay))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.losses, model.losses)
