"""Functions made linear, against their Jacobian and Hessian."""

import tensorflow as tf

from far_ho_tf.variables.derivatives import linearize, linearize_gradient
from tests.helpers import assert_close


def test_linearize_equals_the_jacobian():
    """Also where the derivative of a linear map takes a logarithm."""
    x, scale = tf.constant([0.3, -0.2, 0.5]), tf.constant(2.0)

    def function():
        return [tf.sin(scale * x), tf.math.cumulative_logsumexp(x)]

    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, scale])
        targets = function()
    linear = linearize(function, [x, scale])
    along = [tf.constant([1.0, 2.0, -1.0]), tf.constant(0.5)]
    for target, tangent in zip(targets, linear.jvp(along), strict=True):
        expected = tf.linalg.matvec(tape.jacobian(target, x), along[0])
        by_scale = tape.jacobian(target, scale)
        if by_scale is not None:
            expected += by_scale * along[1]
        assert_close([tangent], [expected], 1e-6)
    assert linear.depends == [True, True]
    assert linearize(lambda: [x * x], [x, scale]).depends == [True, False]


def test_linearize_gradient_equals_the_hessian():
    """∂(∇_w L) along (ẇ, λ̇), for L = w₀² w₁ λ² + μ, in closed form."""
    w, scale, shift = tf.constant([0.3, -0.2]), tf.constant(2.0), tf.constant(1.0)
    unread = tf.constant(1.0)
    sources = [[w], [scale, shift, unread]]

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(sources)
            value = w[0] ** 2 * w[1] * scale**2 + shift
        return tape.gradient(value, sources)

    linear = linearize_gradient(gradient, sources)
    one = tf.constant(1.0)
    (along,) = linear.jvp([[tf.constant([1.0, -2.0])], [tf.constant(0.5), one, one]])
    # λ² (2 w₁ ẇ₀ + 2 w₀ ẇ₁, 2 w₀ ẇ₀) + 2 λ λ̇ (2 w₀ w₁, w₀²)
    expected = [4 * (-0.4 - 1.2) + 2 * -0.12, 4 * 0.6 + 2 * 0.09]
    assert_close([along], [expected], 1e-6)
    assert_close(linear.targets, [[4 * 2 * 0.3 * -0.2, 4 * 0.09]], 1e-6)
    assert linear.depends == [[True], [True, False, False]]
