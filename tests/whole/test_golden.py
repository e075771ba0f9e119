"""Golden values: recorded outputs of other packages, and closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers

JIT = pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)
MODES = pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])


@JIT
@MODES
def test_far_ho_check_forward_notebook(method, jit_compile):
    """FAR-HO, "check forward.ipynb": recorded there, recomputed by complex step.

    The expected digits below come from `complex_step`, and agree with the
    notebook's (λ −0.0183935, 0.0551806, 0.00367871; η 0.538723; μ −0.0765422).
    """
    first = keras.Variable([[1.0, -1, 1], [2, 10, 2]], dtype="float64", name="v1")
    second = keras.Variable([-1.0, 1, 0.2], dtype="float64", name="v2")
    penalty = hyper(np.ones(3), "penalty")
    rate, mass = hyper(0.1, "rate"), hyper(0.5, "mass")
    problem = far.BilevelProblem(
        inner_objective=lambda: (
            tf.reduce_mean(first * first) + tf.reduce_sum(penalty * second * second)
        ),
        outer_objective=lambda: tf.reduce_mean(first * second),
        variables=[first, second],
        dynamics=far.Momentum(rate, mass),
        hyperparameters=[penalty, rate, mass],
    )
    result = method(jit_compile=jit_compile).compute(problem, 10)
    recorded = [[-0.0183935, 0.0551806, 0.00367871], 0.538723, -0.0765422]
    assert_close(result.hypergradients, recorded, 2e-6)  # as printed there
    assert_close(result.hypergradients, _complex_step_of_case_a(), 1e-12)


def _complex_step_of_case_a(width=1e-30):
    def outer(penalty, rate, mass):
        first = np.array([[1.0, -1, 1], [2, 10, 2]], complex)
        second = np.array([-1.0, 1, 0.2], complex)
        m1, m2 = 0 * first, 0 * second
        for _ in range(10):
            m1 = mass * m1 + 2 * first / first.size
            m2 = mass * m2 + 2 * penalty * second
            first, second = first - rate * m1, second - rate * m2
        return (first * second).mean().imag / width

    ones, step = np.ones(3, complex), 1j * width
    return [
        np.array([outer(ones + step * row, 0.1, 0.5) for row in np.eye(3)]),
        outer(ones, 0.1 + step, 0.5),
        outer(ones, 0.1, 0.5 + step),
    ]


@JIT
@MODES
def test_far_ho_ridge_closed_form(method, jit_compile):
    """FAR-HO, test_backtracking.py: converged ridge in one dimension."""
    level, strength = 10.65158, 0.008921
    w = tf.Variable(0.0, dtype=tf.float64, name="w")
    penalty = hyper(strength, "penalty")
    problem = far.BilevelProblem(
        inner_objective=lambda: 0.5 * (w - level) ** 2 + 0.5 * penalty * w**2,
        outer_objective=lambda: 0.5 * (w - 2.0) ** 2 + penalty * penalty,
        variables=[w],
        dynamics=far.GradientDescent(0.5),
        hyperparameters=[penalty],
    )
    result = method(jit_compile=jit_compile).compute(problem, 60)
    best = level / (1 + strength)
    exact = -(best - 2) * best / (1 + strength) + 2 * strength
    assert_close([w], [10.5573975], 1e-8)
    assert_close([w], [best], 1e-13)
    assert_close(result.hypergradients, [-89.5271731], 1e-8)
    assert_close(result.hypergradients, [exact], 1e-12)


@JIT
@MODES
def test_hypertorch_logistic_regression(method, jit_compile):
    """hypertorch, logistic_regression.ipynb: one penalty per feature."""
    x_train, y_train, x_val, y_val = _hypertorch_data()
    w = keras.Variable(np.zeros(20), dtype="float64", name="w")
    penalties = hyper(np.ones(20), "penalties")

    def cross_entropy(batch):
        x, y = batch
        logits = tf.linalg.matvec(x, tf.convert_to_tensor(w))
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)
        return tf.reduce_mean(losses)

    problem = far.BilevelProblem(
        inner_objective=lambda batch: (
            cross_entropy(batch) + 0.5 * tf.reduce_sum(penalties * w * w)
        ),
        outer_objective=cross_entropy,
        variables=[w],
        dynamics=far.GradientDescent(0.1),
        hyperparameters=[penalties],
        inner_data=(x_train, y_train),
        outer_data=(x_val, y_val),
    )
    result = method(jit_compile=jit_compile).compute(problem, 100)
    recorded = np.array([0.693147, 0.628559, 0.624390, 0.624090])
    values = result.inner_values.numpy()[[0, 10, 20, 99]]
    np.testing.assert_allclose(values, recorded, atol=6e-7)
    np.testing.assert_allclose(result.outer_value, 0.574399, atol=6e-7)
    (gradient,) = result.hypergradients
    first = [0.00865926, 0.00151007, 0.00079046, 0.00307112, 0.00532639]
    np.testing.assert_allclose(gradient[:5], first, atol=6e-9)
    np.testing.assert_allclose(np.linalg.norm(gradient), 0.0285649885, rtol=1e-8)
    np.testing.assert_allclose(np.sum(gradient), 0.0838994512, rtol=1e-8)


def _hypertorch_data():
    """The notebook's data, with scikit-learn's split written out."""
    random = np.random.RandomState(1)
    truth = random.randn(20)
    x = random.randn(1000, 20)
    y = (x @ truth + 0.1 * random.randn(1000) > 0).astype(float)
    order = random.permutation(1000)
    val, train = order[:500], order[500:]
    return x[train], y[train], x[val], y[val]
