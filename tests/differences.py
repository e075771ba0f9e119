"""Derivatives of functions against differences; and TensorFlow's own in their place."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from far_ho_tf.patches import linear_algebra, zeros_and_ties
from tests.helpers import own_derivative

WIDTH = 1e-5
ORIGINALS = {
    "weighted_cross_entropy_with_logits": zeros_and_ties._weighted_cross_entropy,
    "eigh_tridiagonal": linear_algebra._eigh_tridiagonal,
    "celu": zeros_and_ties._celu,
    "logaddexp": zeros_and_ties._logaddexp,
    "logaddexp2": zeros_and_ties._logaddexp2,
    "hypot": zeros_and_ties._hypot,
    "sinc": zeros_and_ties._sinc,
    "_pow": zeros_and_ties._power,
    "mul": zeros_and_ties._multiply,
    "square": zeros_and_ties._square,
}


def normals():
    """Draws numbers of a shape: in each file the same, whichever others are run."""
    random = np.random.RandomState(0)
    return lambda *shape, dtype="float64": random.randn(*shape).astype(dtype)


def complex_of(x):
    """A complex tensor of the halves of a vector, as a square matrix or a vector."""
    real, imaginary = tf.split(x, 2)
    return tf.complex(real, imaginary)


def matrix(x, size=2):
    return tf.reshape(complex_of(x), [size, size])


def parts(z):
    return tf.concat([tf.math.real(z), tf.math.imag(z)], -1)


def turns(function, count, start):
    """A sum over turns of a loop, by TensorFlow or by Python."""
    if count < 0:
        return sum(function(float(turn)) for turn in range(-count))
    _, total = tf.while_loop(
        lambda turn, _: turn < count,
        lambda turn, total: (turn + 1, total + function(tf.cast(turn, start.dtype))),
        (0, start),
    )
    return total


@contextlib.contextmanager
def unpatched(what):
    """Within, TensorFlow's own derivative or function is in its place."""
    if isinstance(what, str):
        with own_derivative(what):
            yield
        return
    module, name = what
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, name, ORIGINALS[name])
        yield


def derivatives(function, x, jit_compile=False):
    """A weighted sum of sin(1 + f), its gradient, and H·d, as NumPy arrays."""
    direction = tf.constant(1 + np.arange(x.size) / 7.0)

    def total(x):
        value = tf.reshape(function(x), [-1])
        weights = tf.cast(tf.range(1, tf.size(value) + 1), value.dtype)
        return tf.reduce_sum(weights * tf.sin(1 + value))

    @tf.function(autograph=False, jit_compile=jit_compile)
    def all_of_them(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = total(x)
            gradient = inner.gradient(value, x)
        second = outer.gradient(
            gradient, x, direction, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return value, gradient, second

    return all_of_them, direction.numpy()


def errors(function, x, jit_compile=False):
    """Of the gradient and of H·d, relative to what differences give."""
    call, direction = derivatives(function, x, jit_compile)
    _, gradient, second = (one.numpy().ravel() for one in call(tf.constant(x)))
    exact = []
    for index in range(2):
        up, down = (
            call(tf.constant(x + sign * WIDTH * direction))[index].numpy().ravel()
            for sign in (1, -1)
        )
        exact.append((up - down) / (2 * WIDTH))
    first = abs(gradient @ direction - exact[0]) / max(abs(exact[0]), 1e-3)
    norm = max(np.linalg.norm(exact[1]), 1e-3)
    return first, np.linalg.norm(second - exact[1]) / norm


def assert_derivatives(function, x, bent=False):
    """Both are those of differences; of what is bent at x, the first one."""
    first, second = errors(function, x)
    assert first < 1e-6 and (bent or second < 1e-5), (first, second)


def assert_wrong_without(what, function, x):
    """They are not, where TensorFlow's own is in the place of a patch."""
    with unpatched(what):
        first, second = errors(function, x)
    assert not (first < 1e-4 and second < 1e-4)
