"""Smooth functions at zeros and ties.

A row whose fault is not found any more can be dropped, with its patch.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import nn
from keras.src.backend.tensorflow import numpy as keras_numpy
from tensorflow.python.ops import gen_math_ops

from tests.differences import (
    assert_derivatives,
    assert_wrong_without,
    complex_of,
    normals,
    unpatched,
)
from tests.helpers import assert_close

normal = normals()
# Whose second derivatives jump where they are looked at.
BENT = ("celu at zero",)


def times_itself(x):
    size = tf.abs(x)
    return size * size


def multiple_times_itself(x):
    size = x[0] * tf.abs(x[1:])
    return size * size


def weighted_cross_entropy(labels, logits, weight):
    return tf.nn.weighted_cross_entropy_with_logits(labels, logits, weight)


CASES = {
    "bessel_i0 at zero": ("BesselI1", tf.math.special.bessel_i0, np.zeros(1)),
    "keras.ops.i0 at zero": ("BesselI1", keras.ops.i0, np.zeros(1)),
    "bessel_i1 at zero": ("BesselI1", tf.math.special.bessel_i1, np.zeros(1)),
    "bessel_j1 at zero": ("BesselJ1", tf.math.special.bessel_j1, np.zeros(1)),
    "xlogy at zero": (
        "Xlogy",
        lambda x: tf.math.xlogy(x[0], x[1:]),
        np.array([0.0, 0.3, 2.0]),
    ),
    "xlog1py at zero": (
        "Xlog1py",
        lambda x: tf.math.xlog1py(x[0], x[1:]),
        np.array([0.0, 0.3, 2.0]),
    ),
    "xdivy at zero": (
        "Xdivy",
        lambda x: tf.math.xdivy(x[0], x[1:]),
        np.array([0.0, 0.3, -2.0]),
    ),
    "celu at zero": ((nn, "celu"), keras.activations.celu, np.array([0.0, 0.3, -0.4])),
    "logaddexp at a tie": (
        (keras_numpy, "logaddexp"),
        lambda x: keras.ops.logaddexp(x, tf.constant([0.5, 0.5], x.dtype)),
        np.array([0.5, 0.2]),
    ),
    "logaddexp2 at a tie": (
        (keras_numpy, "logaddexp2"),
        lambda x: keras.ops.logaddexp2(x, tf.reverse(x, [0])),
        np.array([0.5, 0.5]),
    ),
    "hypot at zero": (
        (keras_numpy, "hypot"),
        lambda x: keras.ops.hypot(x, tf.reverse(x, [0])),
        np.array([0.0, 1.0]),
    ),
    "hypot at a tie": (
        (keras_numpy, "hypot"),
        lambda x: keras.ops.hypot(x, tf.reverse(x, [0])),
        np.array([1.5, -1.5]),
    ),
    "sinc at zero": ((keras_numpy, "sinc"), keras.ops.sinc, np.array([0.0, 0.4])),
    "sinc near zero": (
        (keras_numpy, "sinc"),
        keras.ops.sinc,
        np.array([1e-9, -1e-5, 2e-3, 0.02, 0.05]),
    ),
    "logaddexp of NumPy": (
        None,
        lambda x: tf.experimental.numpy.logaddexp(x, 0.5),
        np.array([0.5, 0.2]),
    ),
    "logaddexp2 of NumPy": (
        None,
        lambda x: tf.experimental.numpy.logaddexp2(x, tf.reverse(x, [0])),
        np.array([0.5, 0.5]),
    ),
    "weighted cross-entropy at zero": (
        (tf.nn, "weighted_cross_entropy_with_logits"),
        lambda x: weighted_cross_entropy(np.array([0.2, 1.0, 0.0]), x, 2.5),
        np.array([0.0, 0.3, -0.4]),
    ),
    "|x| ** 2": (
        (gen_math_ops, "_pow"),
        lambda x: tf.abs(x) ** 2,
        np.array([0.0, 0.3]),
    ),
    "|x| · |x|": (
        (gen_math_ops, "mul"),
        times_itself,
        np.array([0.0, 0.3]),
    ),
    "|x| times another |x|": (
        (gen_math_ops, "mul"),
        lambda x: tf.abs(x) * keras.ops.abs(x),
        np.array([0.0, 0.3]),
    ),
    "square of |x|": (
        (tf, "square"),
        lambda x: tf.square(tf.abs(x)),
        np.array([0.0, 0.3]),
    ),
    "keras.ops.square of |x|": (
        (tf, "square"),
        lambda x: keras.ops.square(keras.ops.abs(x)),
        np.array([0.0, 0.3]),
    ),
    "a part of |x|, squared": (
        (tf, "square"),
        lambda x: tf.square(tf.reshape(tf.transpose(tf.abs(x)[1:, tf.newaxis]), [2])),
        np.array([0.2, 0.0, 0.3]),
    ),
    "a multiple of |x|, squared": (
        (gen_math_ops, "_pow"),
        lambda x: (x[0] * tf.abs(x[1:]) / 3) ** 2,
        np.array([1.7, 0.0, 0.3]),
    ),
    "a multiple of |x|, times itself": (
        (gen_math_ops, "mul"),
        multiple_times_itself,
        np.array([1.7, 0.0, 0.3]),
    ),
    "a part of a power spectrum": (
        (tf, "square"),
        lambda x: tf.square(tf.abs(tf.signal.rfft(x[1:]))[1:] * x[0]),
        np.array([1.3, 0.0, 0.0, 0.0, 0.0]),
    ),
    "|z| ** 2": (
        (gen_math_ops, "_pow"),
        lambda x: tf.abs(complex_of(x)) ** 2,
        np.array([0.0, 0.3, 0.0, 0.4]),
    ),
}


# Values of functions that are written another way.
VALUES = {
    "celu": (keras.activations.celu, [normal(50)]),
    "logaddexp": (keras.ops.logaddexp, [normal(50), normal(50)]),
    "logaddexp2": (keras.ops.logaddexp2, [normal(50), np.r_[normal(49), np.inf]]),
    "hypot": (keras.ops.hypot, [normal(50), normal(50)]),
    "sinc": (keras.ops.sinc, [np.r_[normal(49), 0.0]]),
    "weighted_cross_entropy_with_logits": (
        weighted_cross_entropy,
        [normal(50), np.r_[normal(49), 0.0], normal(50)],
    ),
    "square": (lambda x: tf.square(tf.abs(x)), [normal(50)]),
    "square, scaled": (
        lambda x, y: tf.square(tf.abs(x)[1:] * y[1:]),
        [normal(50), normal(50)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:], bent=name in BENT)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_to_the_bit(name):
    original, inputs = VALUES[name]
    function = tf.function(original, autograph=False)
    patched = function(*map(tf.constant, inputs)).numpy()
    modules = {
        "celu": nn,
        "square": tf,
        "weighted_cross_entropy_with_logits": tf.nn,
    }
    name = name.split(",")[0]
    with unpatched((modules.get(name, keras_numpy), name)):
        own = tf.function(original, autograph=False)
        own = own(*map(tf.constant, inputs)).numpy()
    assert np.array_equal(patched, own, equal_nan=True)


def test_selu_has_one_derivative_at_zero():
    """TensorFlow's own, under XLA too, where it was another run."""

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.selu(x)
        return tape.gradient(y, x)

    x = tf.constant(np.r_[0.0, normal(20)])
    found = [
        tf.function(gradient, jit_compile=flag, autograph=False)(x).numpy()
        for flag in (False, True)
    ]
    with unpatched("Selu"):
        own, by_xla = (
            tf.function(gradient, jit_compile=flag, autograph=False)(x).numpy()
            for flag in (False, True)
        )
    assert np.array_equal(found[0], own)
    assert_close(found[1:], [own], 1e-12)
    assert abs(by_xla[0] - own[0]) > 0.1
