"""Adam where gradients are exactly zero."""

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper


def test_dead_units_under_adam():
    """Gradients that are exactly zero, at first and for ever.

    The unrolled reference has NaN there; a complex step of the same run in
    NumPy does not, since √v is then the root of a tiny but nonzero number.
    """
    x = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 0.5]])  # the second input is dead
    kernel = np.array([[0.5, -9.0], [0.3, -9.0], [0.2, -9.0]])  # so is one ReLU
    kernel[:, 1] -= 9.0
    w = keras.Variable(kernel, dtype="float64", name="w")
    hypers = [
        hyper(value, name)
        for value, name in ((0.1, "rate"), (0.9, "b1"), (0.99, "b2"), (1e-3, "eps"))
    ]
    shift = hyper(np.array([0.1, 0.2, 0.3]), "shift")

    def inner():
        hidden = tf.nn.relu(tf.matmul(x + 0.0 * x, w))
        return tf.reduce_sum(hidden**2) + tf.reduce_sum(shift * w[:, 0] * x[0])

    problem = far.BilevelProblem(
        inner,
        lambda: tf.reduce_sum(tf.convert_to_tensor(w) ** 2),
        [w],
        far.Adam(*hypers),
        [*hypers, shift],
    )

    def run(rate, b1, b2, epsilon, shift):
        weights = kernel.astype(complex)
        m = v = np.zeros_like(weights)
        for t in range(6):
            hidden = x @ weights
            hidden = np.where(hidden.real > 0, hidden, 0)
            g = x.T @ (2 * hidden)
            g[:, 0] += shift * x[0]
            m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (g * g - v)
            scale = rate * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
            weights = weights - scale * m / (np.sqrt(v) + epsilon)
        return (weights**2).sum()

    point = [0.1, 0.9, 0.99, 1e-3, np.array([0.1, 0.2, 0.3], complex)]
    expected = []
    for i in range(4):
        moved = [p + (1e-30j if i == j else 0) for j, p in enumerate(point)]
        expected.append(run(*moved).imag / 1e-30)
    steps = [point[4] + 1e-30j * row for row in np.eye(3)]
    expected.append(np.array([run(*point[:4], s).imag / 1e-30 for s in steps]))
    for jit_compile in (False, True):
        result = far.ReverseHG(jit_compile=jit_compile).compute(problem, 6)
        assert_close(result.hypergradients, expected, 1e-9)


def test_derivative_at_a_zero_gradient_is_the_limit():
    """Adam's first step at g = λ·1 near λ = 0: w = −η λ/ε to first order."""
    w = keras.Variable(0.0, dtype="float64", name="w")
    scale = hyper(0.0, "scale")
    problem = far.BilevelProblem(
        lambda: scale * w,
        lambda: 1.0 * w,
        [w],
        far.Adam(0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-3),
        [scale],
    )
    result = far.ReverseHG().compute(problem, 1)
    correction = np.sqrt(1 - 0.99) / (1 - 0.9)
    assert_close(result.hypergradients, [-0.1 * correction * (1 - 0.9) / 1e-3], 1e-12)
