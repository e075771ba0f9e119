"""Each fault that the library knows of, shown in TensorFlow itself.

A row whose test fails because TensorFlow got better can be dropped.
"""

import fnmatch
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.problem.faults import AVOIDS_XLA, FAULTS, REFUSED, REFUSED_BY_XLA, WARNED
from tests.differences import normals
from tests.helpers import relative_error
from tests.known_faults import (
    MISSING_SECOND,
    NOT_REPLAYED,
    OTHER_BY_XLA,
    WRONG_FIRST,
    WRONG_SECOND,
    WRONG_SECOND_IN_XLA,
    complex_root,
    problem_with,
    reshaped_max_pool,
)
from tests.tapes import (
    WIDTH,
    error_of_first_derivative,
    error_of_second_derivative,
    product_by_tapes,
)

normal = normals()
RANDOM = np.random.RandomState(0)


@pytest.mark.parametrize("operation", WRONG_SECOND)
def test_second_derivative_is_wrong(operation):
    assert error_of_second_derivative(*with_width(WRONG_SECOND[operation])) > 0.1


def test_second_derivative_of_a_complex_logarithm_is_wrong_in_xla_only():
    function, x = WRONG_SECOND_IN_XLA["Reciprocal"]
    assert error_of_second_derivative(function, x, True) > 0.1
    assert error_of_second_derivative(function, x, False) < 1e-6


@pytest.mark.parametrize("operation", ["MaxPoolGrad", "MaxPool3DGrad"])
def test_second_derivative_of_max_pooling_is_wrong_in_xla_only(operation):
    function, x = WRONG_SECOND_IN_XLA[operation]
    exact = product_by_tapes(reshaped_max_pool, x, operation == "MaxPool3DGrad")[2]
    by_graph = product_by_tapes(function, x)[2]
    by_xla = product_by_tapes(function, x, jit_compile=True)[2]
    assert relative_error(by_graph, exact) < 1e-5
    assert relative_error(by_xla, exact) > 0.1


@pytest.mark.parametrize("operation", ["Sqrt", "SqrtGrad", "Rsqrt", "RsqrtGrad"])
def test_first_derivative_of_complex_roots_is_wrong_in_xla_only(operation):
    root = tf.math.rsqrt if operation.startswith("Rsqrt") else tf.sqrt
    function, x = (lambda x: root(tf.complex(x, x * x))), 1 + RANDOM.rand(4)
    assert error_of_first_derivative(function, x, True) > 1e-2
    assert error_of_first_derivative(function, x) < 1e-6


@pytest.mark.parametrize("operation", WRONG_FIRST)
def test_first_derivative_is_wrong(operation):
    assert error_of_first_derivative(*with_width(WRONG_FIRST[operation])) > 0.02


@pytest.mark.parametrize("operation", MISSING_SECOND)
def test_second_derivative_is_missing(operation):
    function, x = MISSING_SECOND[operation]
    with pytest.raises((LookupError, tf.errors.OpError)):
        product_by_tapes(function, x)


@pytest.mark.parametrize("operation", NOT_REPLAYED)
def test_numbers_are_drawn_anew(operation):
    draw = tf.function(NOT_REPLAYED[operation])
    x = tf.ones([3])
    draws = [draw(x).numpy().tolist() for _ in range(20)]
    assert any(other != draws[0] for other in draws)


def test_xla_draws_other_random_numbers():
    def draw():
        return tf.random.stateless_uniform([4], seed=[1, 2])

    compiled = tf.function(draw, jit_compile=True)()
    assert not np.allclose(draw(), compiled)


def with_width(case):
    function, x, *width = case
    return function, x, False, *(width or [WIDTH])


@pytest.mark.parametrize("operation", [*WRONG_SECOND, *WRONG_FIRST, *MISSING_SECOND])
def test_the_library_refuses_and_names_the_remedy(operation):
    cases = WRONG_SECOND | WRONG_FIRST | MISSING_SECOND
    (fault,) = [f for f in FAULTS if is_about(f, operation) and f.verdict == REFUSED]
    with pytest.raises(ValueError, match=f"holds {operation}") as error:
        problem_with(*cases[operation][:2])
    assert fault.remedy in str(error.value)


@pytest.mark.parametrize("operation", NOT_REPLAYED)
def test_the_library_refuses_numbers_that_are_drawn_anew(operation):
    with pytest.raises(ValueError, match=f"holds {operation}.*SeedGenerator"):
        problem_with(NOT_REPLAYED[operation], np.ones(3, "float32"))


def test_the_library_refuses_an_iterator():
    elements = iter(tf.data.Dataset.range(9).map(lambda i: tf.cast(i, tf.float32)))
    with pytest.raises(ValueError, match=r"holds IteratorGetNext.*`inner_data`"):
        problem_with(lambda x: x * next(elements), np.ones(3, "float32"))


GENERATORS = {
    "seed_generator_state": lambda: functools.partial(
        keras.random.normal, (3,), seed=keras.random.SeedGenerator(1)
    ),
    "StateVar": lambda: functools.partial(tf.random.Generator.from_seed(1).normal, [3]),
}


@pytest.mark.parametrize("variable", GENERATORS)
def test_the_library_refuses_data_that_change_a_generator(variable):
    """Batches made again, as on the way back, would be others."""
    draw = GENERATORS[variable]()

    def problem(**data):
        w = keras.Variable(tf.ones(3), name="w")
        rate = far.Hyperparameter(0.1, name="rate")
        return far.BilevelProblem(
            *(lambda *x: tf.reduce_sum((w - sum(x)) ** 2) for _ in range(2)),
            *([w], far.GradientDescent(rate), [rate]),
            **data,
        )

    with pytest.raises(
        ValueError, match=f"`inner_data` changes.*{variable}.*stateless"
    ):
        far.ReverseHG().compute(problem(inner_data=lambda step: draw()), 2)
    # Those of the outer objective are made once.
    far.ReverseHG().compute(problem(outer_data=lambda step: draw()), 2)


@pytest.mark.parametrize("operation", [*WRONG_SECOND_IN_XLA, "Sqrt"])
def test_the_library_avoids_xla_or_refuses_it(operation):
    function, x = WRONG_SECOND_IN_XLA.get(operation, (complex_root, np.ones(3)))
    problem = problem_with(function, x)
    status = far.ReverseHG().compute(problem, 2).status
    assert status.compiler == "graph"
    assert operation in status.reason
    with pytest.raises(ValueError, match=f"jit_compile=True.*{operation}"):
        far.ReverseHG(jit_compile=True).compute(problem, 2)


class TestOtherParts:
    """First derivatives are taken of all parts, second ones of the inner only."""

    def problem(self, **changes):
        w = keras.Variable(np.ones(3), name="w")
        rate = far.Hyperparameter(0.1, dtype="float64", name="rate")
        parts = {
            "inner_objective": lambda: tf.reduce_sum(w * w),
            "outer_objective": lambda: tf.reduce_sum(tf.sin(w)),
            "dynamics": far.GradientDescent(rate),
        }
        for name, change in changes.items():
            parts[name] = change(w, rate)
        return far.BilevelProblem(variables=[w], hyperparameters=[rate], **parts)

    def test_outer_objective(self):
        with pytest.raises(
            ValueError, match=r"`outer_objective` holds Zeta \(`Zeta`, test_"
        ):
            self.problem(
                outer_objective=lambda w, rate: (
                    lambda: tf.reduce_sum(tf.math.zeta(w.value + 2, np.ones(3)))
                )
            )

    def test_second_derivatives_do_not_matter_in_the_outer_objective(self):
        def objective(w, rate):
            return lambda: tf.reduce_sum(tf.nn.softsign(tf.convert_to_tensor(w)))

        result = far.ReverseHG().compute(self.problem(outer_objective=objective), 2)
        # w_2 = (1 − 2η)² and Σ 1/(1 + w)² · dw/dη, with dw/dη = −4 (1 − 2η).
        exact = 3 * -4 * 0.8 / (1 + 0.64) ** 2
        assert relative_error(result.hypergradients[0], exact) < 1e-12

    def test_xla_is_avoided_for_the_outer_objective(self):
        def objective(w, rate):
            return lambda: tf.math.real(tf.reduce_sum(complex_root(w.value + 1)))

        status = (
            far.ReverseHG().compute(self.problem(outer_objective=objective), 2).status
        )
        assert (status.compiler, "`outer_objective` holds Sqrt" in status.reason) == (
            "graph",
            True,
        )

    def test_an_outer_objective_that_assigns_a_tf_variable(self):
        kept = tf.Variable(0.0, dtype=tf.float64, name="kept")

        def objective(w, rate):
            return lambda: kept.assign(tf.reduce_sum(w * w)).read_value()

        with pytest.raises(ValueError, match=r"`outer_objective` assigns .*`kept`"):
            far.ReverseHG().compute(self.problem(outer_objective=objective), 2)

    def test_a_schedule_that_draws_random_numbers(self):
        with pytest.raises(ValueError, match="`dynamics` holds RandomUniform"):
            self.problem(
                dynamics=lambda w, rate: far.GradientDescent(
                    lambda step: rate * tf.random.uniform([], dtype=tf.float64)
                )
            )


def test_every_row_is_shown_or_listed():
    shown = [*WRONG_SECOND, *WRONG_SECOND_IN_XLA, *WRONG_FIRST, *MISSING_SECOND]
    shown += [*NOT_REPLAYED, "IteratorGetNext", "StatelessRandomUniformV2", "Sqrt"]
    shown += ["StopGradient", "EagerPyFunc", *OTHER_BY_XLA, "Assert"]
    for fault in FAULTS:
        assert any(is_about(fault, operation) for operation in shown), fault
        assert fault.verdict in (REFUSED, REFUSED_BY_XLA, AVOIDS_XLA, WARNED)


def through_python(x):
    return tf.py_function(lambda x: x**3, [x], x.dtype)


def test_a_python_function_has_no_second_derivative():
    """TensorFlow fails, or leaves it out, depending on what surrounds it."""
    x = normal(3)
    try:
        error = error_of_second_derivative(through_python, x)
    except tf.errors.OpError:
        error = np.inf
    assert error > 0.1
    with pytest.raises(ValueError, match="holds EagerPyFunc"):
        far.ReverseHG().compute(problem_with(through_python, x), 2)


def is_about(fault, operation):
    return any(fnmatch.fnmatchcase(operation, p) for p in fault.operations)
