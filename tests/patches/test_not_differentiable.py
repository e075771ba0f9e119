"""What TensorFlow does not differentiate, or not in its labels; both are linear."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.differences import normals
from tests.helpers import assert_close
from tests.tapes import WIDTH, error_of_first_derivative, error_of_second_derivative

normal = normals()


def cross_entropy_with_labels(x):
    """Labels and logits that both depend on x."""
    return tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(x[0] / 2), x[1])


def sparse_pair(x):
    """Whose values change places when they are put together along columns."""
    first = tf.SparseTensor(np.array([[0, 1], [1, 0]], np.int64), x[:2], [2, 2])
    second = tf.SparseTensor(np.array([[0, 0], [1, 1]], np.int64), x[2:], [2, 2])
    return tf.sparse.concat(1, [first, second]).values * np.arange(1.0, 5.0)


LINEAR = {
    "OneHot": (
        lambda x: tf.one_hot([0, 2, 1, 0], 3, 1 - x[0], x[0] / 3 + x[1], dtype=x.dtype),
        normal(2),
    ),
    "OneHot of another axis": (
        lambda x: tf.one_hot([[0, 2]], 3, x[0], x[1], axis=1, dtype=x.dtype),
        normal(2),
    ),
    "Range": (
        lambda x: tf.range(x[0], x[0] + 4.5 * x[1] ** 2, x[1] ** 2),
        np.array([0.3, 0.7]),
    ),
    "SparseConcat": (sparse_pair, normal(4)),
}


class TestMendedLinear:
    """What TensorFlow registers as not differentiable, and is linear."""

    @pytest.mark.parametrize("name", LINEAR)
    def test_derivatives(self, name):
        function, x = LINEAR[name]
        for xla in {False, name.startswith("OneHot")}:
            assert error_of_first_derivative(function, x, xla) < 1e-6
            assert error_of_second_derivative(function, x, xla) < 1e-6

    @pytest.mark.parametrize("xla", [False, True])
    def test_cross_entropy_with_labels(self, xla):
        x = normal(2, 3, 4)
        assert error_of_first_derivative(cross_entropy_with_labels, x, xla) < 1e-6
        assert error_of_second_derivative(cross_entropy_with_labels, x, xla) < 1e-6

    @pytest.mark.parametrize("mode", [far.ReverseHG(False), far.ForwardHG(False)])
    def test_label_smoothing(self, mode):
        """One number beside another hyperparameter, as it went unnoticed."""
        random = np.random.RandomState(0)
        x, y = random.randn(12, 4), random.randint(0, 3, 12)
        w = keras.Variable(random.randn(4, 3), dtype="float64", name="w")
        both = far.Hyperparameter([0.1, 0.2], dtype="float64", name="both")

        def inner():
            on, off = 1 - both[0], both[0] / 3
            labels = tf.one_hot(y, 3, on, off, dtype=tf.float64)
            losses = labels * tf.nn.log_softmax(x @ tf.convert_to_tensor(w))
            return both[1] * tf.reduce_sum(w.value**2) - tf.reduce_mean(losses)

        def outer():
            log_p = tf.nn.log_softmax(x @ tf.convert_to_tensor(w))
            return -tf.reduce_mean(tf.gather(log_p, y, batch_dims=1))

        def run(smoothing, penalty):
            v, hot = start, np.eye(3)[y]
            labels = hot * (1 - smoothing) + (1 - hot) * smoothing / 3
            for _ in range(4):
                p = np.exp(x @ v)
                p = p / p.sum(1, keepdims=True)
                slope = x.T @ (p * labels.sum(1, keepdims=True) - labels) / 36
                v = v - 0.5 * (slope + 2 * penalty * v)
            p = np.exp(x @ v)
            return -np.log((p / p.sum(1, keepdims=True))[range(12), y]).mean()

        start = w.numpy()
        problem = far.BilevelProblem(
            inner, outer, [w], far.GradientDescent(0.5), [both]
        )
        result = mode.compute(problem, 4)
        assert_close([result.outer_value], [run(0.1, 0.2)], 1e-12)
        expected = [
            (run(0.1 + WIDTH, 0.2) - run(0.1 - WIDTH, 0.2)) / (2 * WIDTH),
            (run(0.1, 0.2 + WIDTH) - run(0.1, 0.2 - WIDTH)) / (2 * WIDTH),
        ]
        assert_close(result.hypergradients, [np.array(expected)], 1e-7)
