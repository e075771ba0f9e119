"""Checkpointing and truncation: the same numbers from fewer states."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference
from tests.helpers import (
    Classification,
    assert_close,
    hyper,
    in_tiers,
    keep_small_products,
    normalized_problem,
    pairwise,
)
from tests.reference import constant

NUM_STEPS = 13
COMPILERS = pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)
CHECKPOINTS = [
    *(("sqrt", "auto", 4 + 4), ("sqrt", False, 4 + 4)),
    *((1, "auto", 1), (3, False, 3), (13, "auto", 13)),
]
TRUNCATED = pairwise([1, 11], [None, 2, "sqrt"], [False, True])


@pytest.fixture(autouse=True)
def products_are_kept(monkeypatch):
    """However small they are."""
    keep_small_products(monkeypatch)


def momentum(problem, **options):
    """Minibatches, momentum, two hyperparameters of the dynamics."""
    rate, mass = problem.hyper(0.2, "rate"), problem.hyper(0.8, "mass")
    batches = far.Batches(problem.train, batch_size=5, seed=3)
    bilevel = problem.bilevel(
        far.Momentum(rate, mass), [rate, mass], inner_data=batches, **options
    )
    rule = reference.momentum(constant(rate), constant(mass))
    return bilevel, problem.naive([rate, mass], batches), rule


@functools.cache
def shared():
    """A problem for all modes, and what `unrolled` returns."""
    bilevel, naive, rule = momentum(Classification())
    return bilevel, reference.unrolled(naive, rule, NUM_STEPS)


@COMPILERS
@pytest.mark.parametrize(
    "checkpointing, keep_residuals, kept", in_tiers(CHECKPOINTS, CHECKPOINTS[:3:2])
)
def test_checkpoints_equal_the_unrolled_reference(
    checkpointing, keep_residuals, kept, jit_compile
):
    bilevel, (value, expected, final) = shared()
    mode = far.ReverseHG(
        jit_compile, checkpointing=checkpointing, keep_residuals=keep_residuals
    )
    result = mode.compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(bilevel.variables, final, 1e-12)
    full = far.ReverseHG(jit_compile).compute(bilevel, NUM_STEPS)
    assert_close([result.inner_values], [full.inner_values], 1e-13)
    assert result.status.kept_states == kept
    assert full.status.kept_states == NUM_STEPS


@pytest.mark.parametrize(
    ("last", "checkpointing", "jit_compile"),
    in_tiers(TRUNCATED, [case for case in TRUNCATED if not case[2]]),
)
def test_truncation_is_a_run_from_a_constant_state(last, checkpointing, jit_compile):
    """The hypergradient of the last steps alone, from where the others end."""
    bilevel, _ = shared()
    before = far.ReverseHG(jit_compile).compute(bilevel, NUM_STEPS - last)
    expected = far.ReverseHG(jit_compile).compute(bilevel, last, start=before.end)
    mode = far.ReverseHG(jit_compile, checkpointing=checkpointing, truncation=last)
    result = mode.compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected.hypergradients, 1e-12)
    assert result.status.truncated == last
    assert result.inner_values.shape == (NUM_STEPS,)
    whole = far.ReverseHG(jit_compile, truncation=NUM_STEPS).compute(bilevel, NUM_STEPS)
    assert whole.status.truncated is None


def test_truncation_leaves_out_the_initial_values():
    """dw_T/dw_0 counts in the whole run only."""
    w, start = keras.Variable(0.0, dtype="float64", name="w"), hyper(1.0, "start")
    problem = far.BilevelProblem(
        lambda: 0.5 * w * w,
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(0.5),
        [start],
        initial_values=[(w, start)],
    )
    assert float(far.ReverseHG().compute(problem, 3).hypergradients[0]) == 0.125
    result = far.ReverseHG(truncation=2).compute(problem, 3)
    assert float(result.hypergradients[0]) == 0.0
    assert result.status.truncated == 2


def test_batchnorm_dropout_and_line_searches_are_replayed():
    """What is computed again is what was computed before."""
    for dynamics in (far.Adam(0.05), far.BacktrackingGradientDescent(4.0)):
        problem = normalized_problem(dynamics)
        full = far.ReverseHG(jit_compile=False).compute(problem, 9)
        found = far.ReverseHG(jit_compile=False, checkpointing=2).compute(problem, 9)
        assert_close(found.hypergradients, full.hypergradients, 1e-9)
        assert_close(found.state.extra, full.state.extra, 1e-12)


def test_a_step_that_is_not_finite_is_found_without_storing_all():
    w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(3.0, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.exp(w * w), lambda: 1.0 * w, [w], far.GradientDescent(rate), [rate]
    )
    steps = []
    for checkpointing in (None, 2, "sqrt"):
        mode = far.ReverseHG(checkpointing=checkpointing)
        with pytest.raises(far.NonFiniteError) as caught:
            mode.compute(problem, 9)
        steps.append(caught.value.step)
    assert steps[0] == steps[1] == steps[2] < 8


def test_a_step_that_is_not_finite_is_found_in_segments():
    w = keras.Variable([[0.1, 0.2], [0.3, 0.1]], name="w")
    rate = far.Hyperparameter(3.0, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(tf.exp(tf.matmul(w, w))),
        lambda: tf.reduce_sum(w),
        [w],
        far.GradientDescent(rate),
        [rate],
    )
    steps = []
    for mode in (far.ReverseHG(), far.ReverseHG(checkpointing="sqrt")):
        with pytest.raises(far.NonFiniteError) as caught:
            mode.compute(problem, 9)
        steps.append(caught.value.step)
    assert mode.policy.storage(problem.pure, 9)[:2] == (3 + 3, 3)
    assert steps[0] == steps[1] < 8


def test_a_budget_with_a_dataset():
    """Whose elements a program must not ask for while it is traced, nor skip."""
    w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(0.1, name="rate")
    numbers = tf.data.Dataset.range(100).map(lambda i: tf.cast(i, tf.float32))
    found = []
    for mode in (far.ReverseHG(), far.ReverseHG(memory_budget=200)):
        w.assign(1.0)
        problem = far.BilevelProblem(
            lambda x: tf.square(w - x),
            lambda: 1.0 * w,
            [w],
            far.Momentum(rate, 0.9),
            [rate],
            inner_data=numbers,
        )
        found.append(mode.compute(problem, 30))
    assert found[1].status.kept_states < 30
    assert_close(found[1].hypergradients, found[0].hypergradients, 1e-6)


@pytest.mark.thorough
def test_a_budget_keeps_as_many_states_as_fit():
    bilevel, _, _ = momentum(Classification())
    least = int(_least(bilevel))
    size = 2 * 8 * (5 * 4 + 4 + 4 * 3 + 3)
    for extra, kept in ((0, 1), (3 * size, 4), (3 * size - 1, 3), (99 * size, 13)):
        mode = far.ReverseHG(memory_budget=least + extra)
        assert mode.compute(bilevel, NUM_STEPS).status.kept_states == kept
    with pytest.raises(ValueError, match="must leave room for one state"):
        far.ReverseHG(memory_budget=least - 1).compute(bilevel, NUM_STEPS)


def _least(bilevel):
    """The smallest budget, as the error tells."""
    with pytest.raises(ValueError) as caught:
        far.ReverseHG(memory_budget=1).compute(bilevel, NUM_STEPS)
    return str(caught.value).split(" bytes")[0].split()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpointing": 0}, "`checkpointing` must be None, 'sqrt' or a positive"),
        ({"checkpointing": "log"}, "`checkpointing` must be"),
        ({"checkpointing": True}, "`checkpointing` must be"),
        ({"truncation": 0}, "`truncation` must be an integer"),
        ({"memory_budget": 1.5}, "`memory_budget` must be an integer"),
        ({"memory_budget": 10, "checkpointing": 2}, "give one of the two"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        far.ReverseHG(**options)


@pytest.mark.parametrize(
    "mode",
    [far.ReverseHG(), far.ReverseHG(checkpointing=2), far.ForwardHG()],
    ids=["reverse", "checkpoints", "forward"],
)
def test_initial_velocities(mode):
    """w_2 = w_0 − η (μ + μ²) m_0 − ..., here without a gradient."""
    w = keras.Variable([1.0, 2.0], dtype="float64", name="w")
    velocity, mass = hyper([0.5, -1.0], "velocity"), hyper(0.5, "mass")
    problem = far.BilevelProblem(
        lambda: 0.0 * tf.reduce_sum(w),
        lambda: tf.reduce_sum(w * np.array([1.0, 3.0])),
        [w],
        far.Momentum(0.25, mass, initial_velocity=[(w, velocity)]),
        [velocity, mass],
    )
    result = mode.compute(problem, 2)
    np.testing.assert_allclose(w, [1.0 - 0.25 * 0.75 * 0.5, 2.0 + 0.25 * 0.75])
    np.testing.assert_allclose(
        result.hypergradients[0], -0.25 * 0.75 * np.array([1, 3])
    )
    # −η (1 + 2μ) Σ c m_0.
    np.testing.assert_allclose(result.hypergradients[1], -0.25 * 2.0 * (0.5 - 3.0))
