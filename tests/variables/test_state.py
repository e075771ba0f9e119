"""State besides the trained variables, and where a run starts from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper

RATE, WIDTH = 0.1, 1e-6


def problem_of(inner, w, rate, **options):
    return far.BilevelProblem(
        inner,
        lambda: tf.reduce_sum(tf.sin(w)),
        [w],
        far.GradientDescent(rate),
        [rate],
        **options,
    )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_an_assignment_that_is_read_again_stops_the_gradient(jit_compile):
    """As in training: w' = w − η ∂L with the average c taken as constant.

    L = w² (1 + c') and c' = (c + w²)/2, by hand, differentiated by a complex
    step: the hypergradient sees c' move with w, the training gradient does not.
    """
    w = keras.Variable(np.float64(0.7), name="w")
    average = keras.Variable(np.float64(0.0), trainable=False, name="average")
    rate = hyper(RATE, "rate")

    def inner():
        square = tf.square(w.value)
        average.assign((average.value + square) / 2)
        return square * (1 + average.value)

    result = far.ReverseHG(jit_compile=jit_compile).compute(
        problem_of(inner, w, rate), 5
    )

    def run(rate):
        w, average = 0.7 + 0j, 0j
        for _ in range(5):
            average = (average + w * w) / 2
            w = w - rate * 2 * w * (1 + average)
        return np.sin(w)

    assert_close([result.outer_value], [run(RATE).real], 1e-12)
    assert_close(result.hypergradients, [run(RATE + 1e-30j).imag / 1e-30], 1e-12)
    assert float(average) > 0


def test_state_is_kept_as_it_was_when_the_problem_was_made():
    """Whoever owns it: two problems on one model do not see each other's runs."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(0.3, seed=1),
            keras.layers.Dense(1),
        ]
    )
    generator = keras.random.SeedGenerator(2)
    rate = far.Hyperparameter(0.1, name="rate")
    x = np.random.RandomState(0).randn(8, 3).astype("float32")

    def inner():
        noise = keras.random.normal((8, 1), seed=generator)
        return tf.reduce_mean((model(x, training=True) - noise) ** 2)

    def outer():
        return tf.reduce_mean((model(x) - 1.0) ** 2)

    one, two = (
        far.BilevelProblem(
            inner,
            outer,
            model.trainable_variables,
            far.Momentum(rate, mass),
            [rate],
        )
        for mass in (0.9, 0.9)
    )
    mode = far.ReverseHG(jit_compile=False)
    values = [
        float(mode.compute(problem, 4).outer_value) for problem in (one, two, one)
    ]
    assert values[0] == values[1] == values[2]


def test_initial_values_may_be_made_from_the_starting_values():
    w = keras.Variable(np.array([1.0, -2.0]), name="w")
    rate, scale = hyper(0.1, "rate"), hyper(0.5, "scale")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w * w),
        lambda: tf.reduce_sum(w),
        [w],
        far.GradientDescent(rate),
        [rate, scale],
        initial_values=[(w, lambda: scale * w)],
    )
    for _ in range(2):  # The second run does not start from the first one's end.
        result = far.ReverseHG().compute(problem, 2)
        # w_2 = (1 − 2η)² s w_0, of which the sum is −(1 − 2η)² s.
        assert_close(result.hypergradients, [4 * 0.8 * 0.5, -(0.8**2)], 1e-12)


def test_initial_values_from_arrays_and_numbers():
    """They take the dtype of the problem."""
    w, v = keras.Variable([1.0, -2.0], name="w"), keras.Variable(3.0, name="v")
    rate = far.Hyperparameter(0.25, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w * w) + v * v,
        lambda: tf.reduce_sum(w) + v,
        [w, v],
        far.GradientDescent(rate),
        [rate],
        initial_values=[(w, np.array([2.0, 4.0])), (v, 8)],
    )
    far.ReverseHG().compute(problem, 1)
    assert (w.numpy().tolist(), float(v)) == ([1.0, 2.0], 4.0)


class TestRefusals:
    @pytest.fixture
    def w(self):
        return keras.Variable(np.ones(2), name="w")

    def test_of_a_trained_variable_that_is_assigned(self, w):
        def inner():
            w.assign(0.5 * w)
            return tf.reduce_sum(w * w)

        with pytest.raises(ValueError, match="`inner_objective` assigns `w`"):
            far.ReverseHG().compute(problem_of(inner, w, hyper(0.1, "rate")), 2)

    def test_of_a_hyperparameter_that_is_assigned(self, w):
        rate = hyper(0.1, "rate")

        def inner():
            rate.assign(0.5 * rate)
            return tf.reduce_sum(w * w)

        with pytest.raises(ValueError, match="`inner_objective` assigns `rate`"):
            far.ReverseHG().compute(problem_of(inner, w, rate), 2)

    def test_of_a_hyperparameter_in_a_scope_of_its_own(self, w):
        rate = hyper(0.1, "rate")

        def inner():
            with keras.StatelessScope():
                factor = rate * 2.0
            return tf.reduce_sum(w * w) * factor

        with pytest.raises(ValueError, match=r"`inner_objective` reads `rate`.*stale"):
            far.ReverseHG().compute(problem_of(inner, w, rate), 2)

    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_of_a_variable_as_data(self, w, role):
        with pytest.raises(ValueError, match=f"`{role}` must be tensors.*path=w"):
            problem_of(
                lambda: tf.reduce_sum(w * w), w, hyper(0.1, "rate"), **{role: (w, w)}
            )

    def test_of_a_variable_in_batches(self, w):
        with pytest.raises(ValueError, match=r"`Batches` must be tensors.*path=w"):
            far.Batches(w, 1)

    def test_of_a_tf_function_around_it(self, w):
        problem = problem_of(lambda: tf.reduce_sum(w * w), w, hyper(0.1, "rate"))

        @tf.function
        def around():
            return far.ReverseHG().compute(problem, 2).outer_value

        with pytest.raises(ValueError, match=r"inside a tf\.function"):
            around()


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_a_tape_of_the_caller_does_not_matter(jit_compile):
    w = keras.Variable(np.ones(2), name="w")
    rate = hyper(0.1, "rate")
    problem = problem_of(lambda: tf.reduce_sum(w * w), w, rate)
    mode = far.ReverseHG(jit_compile=jit_compile)
    expected = mode.compute(problem, 3).hypergradients
    with tf.GradientTape():
        found = mode.compute(problem, 3).hypergradients
    assert_close(found, expected, 0)


def test_objectives_without_source_code():
    """AutoGraph cannot convert them, and never did."""
    w = keras.Variable(np.ones(2), name="w")
    scope = {"tf": tf, "w": w}
    exec("def inner():\n    return tf.reduce_sum(w * w)", scope)
    rate = hyper(0.1, "rate")
    problem = problem_of(tf.function(scope["inner"]), w, rate)
    result = far.ReverseHG().compute(problem, 1)
    assert_close(result.hypergradients, [2 * -2.0 * np.cos(0.8)], 1e-12)
