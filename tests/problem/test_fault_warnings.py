"""Operations that are warned of, and those that look like them and pass."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.differences import normals
from tests.known_faults import IMAGE, problem_with
from tests.tapes import error_of_first_derivative

normal = normals()


def test_data_augmentation_is_not_refused():
    """The same operations on data, which nothing differentiates, are right."""
    images = tf.constant(IMAGE)

    def augmented(x):
        resized = tf.image.resize(images, [8, 8])
        return x * tf.reduce_mean(tf.nn.softsign(resized))

    result = far.ReverseHG().compute(problem_with(augmented, np.ones(3, "float32")), 2)
    assert result.status.compiler == "xla"


def test_labels_that_depend_on_nothing_are_not_refused():
    labels = tf.constant([[0.0, 1.0, 0.0]])
    far.ReverseHG().compute(
        problem_with(
            lambda x: tf.nn.softmax_cross_entropy_with_logits(labels, x[None]),
            np.ones(3, "float32"),
        ),
        2,
    )


def test_a_stopped_gradient_is_warned_of():
    with pytest.warns(UserWarning, match="`inner_objective` holds StopGradient"):
        problem_with(lambda x: x * tf.stop_gradient(x), normal(3))


def truncated(x):
    return tf.random.stateless_parameterized_truncated_normal(
        [3], [1, 2], x, *(np.array(one) for one in (1.0, -1.0, 1.0))
    )


def test_parameters_of_what_is_drawn_by_rejection_are_warned_of():
    x = np.array([0.3, 0.5, 0.9])
    assert error_of_first_derivative(truncated, x) > 0.01
    with pytest.warns(UserWarning, match=r"StatelessParameterizedTr.*on average"):
        problem_with(truncated, x)
    w = keras.Variable(x, name="w", dtype="float64")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
    with pytest.warns(UserWarning, match=r"`outer_objective` holds StatelessRandomG"):
        far.BilevelProblem(
            lambda: tf.reduce_sum(w.value**2),
            lambda: tf.reduce_sum(
                tf.random.stateless_gamma([3], [1, 2], w, dtype="float64")
            ),
            *([w], far.GradientDescent(rate), [rate]),
        )


def test_dependence_goes_around_in_a_loop():
    """What the second turn stops depends on x by the first alone."""

    def function(x):
        def turn(i, total, carried):
            total += tf.stop_gradient(carried)
            return i + 1, total, x * 2.0

        start = (0, tf.zeros_like(x), tf.zeros_like(x))
        return x + tf.while_loop(lambda i, *_: i < 2, turn, start)[1]

    with pytest.warns(UserWarning, match="`inner_objective` holds StopGradient"):
        problem_with(function, normal(3))


def test_dependence_goes_through_a_cast():
    def function(x):
        return x + tf.cast(tf.stop_gradient(tf.cast(x, tf.float32)), x.dtype)

    with pytest.warns(UserWarning, match="`inner_objective` holds StopGradient"):
        problem_with(function, normal(3))


def test_what_logsumexp_stops_is_not_warned_of():
    problem = problem_with(tf.reduce_logsumexp, normal(3))
    far.ReverseHG().compute(problem, 2)


@pytest.mark.parametrize("kind", ["hard", "stopped", "mapped"])
def test_labels_through_which_nothing_is_differentiated(kind):
    """Pseudo-labels, and constant labels beside weights in one loop."""
    constant = tf.constant([[0.0, 1.0, 0.0]], tf.float64)

    def function(x):
        logits = x[None]
        if kind == "mapped":
            return tf.map_fn(
                lambda pair: tf.nn.softmax_cross_entropy_with_logits(*pair),
                (constant, logits),
                fn_output_signature=tf.float64,
            )
        labels = (
            tf.one_hot(tf.argmax(logits, axis=-1), 3, dtype=tf.float64)
            if kind == "hard"
            else tf.stop_gradient(tf.nn.softmax(logits))
        )
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Of the stopped gradient.
        far.ReverseHG(jit_compile=False).compute(problem_with(function, normal(3)), 2)
