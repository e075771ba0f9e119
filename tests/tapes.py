"""First and second derivatives by nested tapes, and their errors."""

import numpy as np
import tensorflow as tf

WIDTH = 1e-5


def direction(x):
    """A fixed direction d, in which no symmetry hides an error."""
    return np.random.RandomState(1).rand(*x.shape).astype(x.dtype.name)


def product_by_tapes(function, x, jit_compile=False):
    """H·1 of Σ sin(function(x)) and its gradient, by nested tapes."""

    def total(x):
        value = function(x)
        if value.dtype.is_complex:
            value = tf.math.real(value) + 2 * tf.math.imag(value)
        return tf.reduce_sum(tf.sin(tf.cast(value, x.dtype)))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def both(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = total(x)
            gradient = inner.gradient(value, x)
            if gradient is None:
                return value, tf.zeros_like(x), tf.zeros_like(x)
            gradient = tf.convert_to_tensor(gradient)
        second = outer.gradient(gradient, x, output_gradients=direction(x))
        return value, gradient, tf.zeros_like(x) if second is None else second

    return both(tf.constant(x))


def error_of_second_derivative(function, x, jit_compile=False, width=WIDTH):
    """‖H·d by tapes − H·d by differences of the gradient‖ / ‖the latter‖."""
    step = direction(x) * np.array(width, x.dtype)
    up = product_by_tapes(function, x + step)[1].numpy()
    down = product_by_tapes(function, x - step)[1].numpy()
    exact = (up - down) / (2 * width)
    found = product_by_tapes(function, x, jit_compile)[2].numpy()
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def error_of_first_derivative(function, x, jit_compile=False, width=WIDTH):
    """The same for the gradient, against differences of the value."""
    step = direction(x) * np.array(width, x.dtype)
    up, down = (product_by_tapes(function, p)[0].numpy() for p in (x + step, x - step))
    exact = (up - down) / (2 * width)
    found = product_by_tapes(function, x, jit_compile)[1].numpy()
    found = (found * direction(x)).sum()
    return abs(found - exact) / abs(exact)
