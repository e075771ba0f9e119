"""Gradient modes: precision, data, traces and states."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference
from tests.dynamics_table import NUM_STEPS, OURS, by_step
from tests.helpers import Classification, assert_close, in_tiers, pairwise

METHODS = [far.ReverseHG, far.ForwardHG]
MODES = pytest.mark.parametrize("method", METHODS)
PRECISIONS = [*((name, False) for name in OURS), ("Momentum", True), ("Adam", True)]


@functools.lru_cache(maxsize=2)
def row(name, dtype):
    """The problem of a row, for all modes."""
    problem = Classification(dtype)
    dynamics, hypers, _ = OURS[name](problem)
    return problem.bilevel(dynamics, hypers)


@functools.lru_cache(maxsize=1)
def exact(name):
    """A row in float64, in which all modes give the same: test_dynamics_table.py."""
    return far.ReverseHG(jit_compile=False).compute(row(name, "float64"), NUM_STEPS)


@MODES
@pytest.mark.parametrize(
    ("name", "jit_compile"), in_tiers(PRECISIONS, [("Momentum", False), ("Adam", True)])
)
def test_float32_is_close_to_float64(method, name, jit_compile):
    mode = method(jit_compile=jit_compile)
    single = mode.compute(row(name, "float32"), NUM_STEPS)
    assert all(g.dtype == tf.float32 for g in single.hypergradients)
    assert_close(single.hypergradients, exact(name).hypergradients, 1e-4)


def batch_kinds(problem):
    """Each kind of data with its own independent list of batches."""
    batches = far.Batches(problem.train, batch_size=5, seed=3)
    drawn = [batches(t) for t in range(NUM_STEPS)]
    dataset = tf.data.Dataset.from_tensor_slices(problem.train)
    rows = [np.arange(t, t + 4) % problem.num_examples for t in range(NUM_STEPS)]
    table = tf.constant(rows)
    return {
        "full": (problem.train, [problem.train] * NUM_STEPS),
        "batches": (batches, drawn),
        "dataset": (dataset.batch(3).repeat(), _slices(problem, 3)),
        "uneven dataset": (dataset.batch(5).repeat(), _slices(problem, 5)),
        "callable": (
            lambda step: tuple(tf.gather(a, table[step]) for a in problem.train),
            [tuple(a[r] for a in problem.train) for r in rows],
        ),
        "slicing callable": (
            lambda step: tuple(tf.constant(a)[step : step + 3] for a in problem.train),
            [tuple(a[t : t + 3] for a in problem.train) for t in range(NUM_STEPS)],
        ),
    }


def _slices(problem, size):
    starts = range(0, problem.num_examples, size)
    epoch = [tuple(a[s : s + size] for a in problem.train) for s in starts]
    return (epoch * NUM_STEPS)[:NUM_STEPS]


@functools.lru_cache(maxsize=1)
def with_data(kind):
    """A problem with its data, and the reference's hypergradients."""
    problem = Classification()
    dynamics, hypers, rule = OURS["Momentum"](problem)
    data, batches = batch_kinds(problem)[kind]
    _, expected, _ = reference.unrolled(
        problem.naive(hypers, lambda t: batches[t]), rule, NUM_STEPS
    )
    return problem.bilevel(dynamics, hypers, inner_data=data), expected


KINDS = ["full", "batches", "dataset", "uneven dataset", "callable", "slicing callable"]
DATA = pairwise(KINDS, [False, "auto"], METHODS)


@pytest.mark.parametrize(
    ("kind", "jit_compile", "method"),
    in_tiers(DATA, [case for case in DATA if case[1] is False]),
)
def test_every_kind_of_data(kind, jit_compile, method):
    bilevel, expected = with_data(kind)
    result = method(jit_compile=jit_compile).compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)


@MODES
def test_each_step_is_differentiated_on_its_batch(method):
    """With steps that differ, no other assignment of batches fits.

    Inner objective c_t·w·λ, so that dw_T/dλ = −η Σ_t c_t and, with a rate per
    step, dw_T/dη_t = −λ c_t: each step's own batch can be read off.
    """
    numbers = np.array([1.0, 10.0, 100.0, 1000.0])
    w = tf.Variable(0.0, dtype=tf.float64, name="w")
    scale = far.Hyperparameter(2.0, dtype="float64", name="scale")
    rates = far.Hyperparameter(np.full(4, 0.1), name="rates")
    problem = far.BilevelProblem(
        inner_objective=lambda c: c * w * scale,
        outer_objective=lambda: 1.0 * w,
        variables=[w],
        dynamics=far.GradientDescent(by_step(rates)),
        hyperparameters=[rates, scale],
        inner_data=lambda step: tf.gather(numbers, step),
    )
    result = method().compute(problem, 4)
    assert_close(result.hypergradients, [-2.0 * numbers, -0.1 * numbers.sum()], 1e-12)


@MODES
@pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)
def test_one_trace_per_problem(method, jit_compile):
    """The objectives' Python runs in the first hyper-iteration only."""
    calls = []
    problem = Classification()
    dynamics, hypers, _ = OURS["Momentum"](problem)
    inner, outer = problem.inner, problem.outer
    problem.inner = lambda batch: calls.append("inner") or inner(batch)
    problem.outer = lambda batch: calls.append("outer") or outer(batch)
    bilevel = problem.bilevel(
        dynamics,
        hypers,
        inner_data=far.Batches(problem.train, 5, seed=1),
        outer_data=tf.data.Dataset.from_tensors(problem.validation),
    )
    mode = method(jit_compile=jit_compile)
    tuner = far.HyperOptimizer(bilevel, mode)
    values = [float(tuner.run(3).outer_value)]
    traced = len(calls)
    assert {"inner", "outer"} == set(calls)
    values += [float(tuner.run(3).outer_value) for _ in range(3)]
    mode.compute(bilevel, 3)
    method(jit_compile=jit_compile).compute(bilevel, 3)  # Equal to `mode`.
    assert len(calls) == traced
    assert len(set(values)) == 4  # The hyperparameters' values were not frozen.
    mode.compute(bilevel, 8)
    assert len(calls) == traced  # Buffers are for 8 steps at least,
    mode.compute(bilevel, 9)
    assert len(calls) > traced  # and for 16 now.


@MODES
def test_a_state_can_be_carried_on(method):
    """Two runs of three steps end where one of six does."""
    problem = Classification()
    rates = problem.hyper(0.1 + 0.02 * np.arange(6), "rates")
    bilevel = problem.bilevel(
        far.Momentum(by_step(rates), 0.9),
        [rates],
        inner_data=far.Batches(problem.train, 5, seed=1),
    )
    mode = method(jit_compile=False)
    whole = mode.compute(bilevel, 6)
    half = mode.compute(bilevel, 3)
    rest = mode.compute(bilevel, 3, start=half.end._replace(tangents=None))
    assert_close(rest.state.variables, whole.state.variables, 1e-14)
    assert_close([rest.hypergradients[0][3:]], [whole.hypergradients[0][3:]], 1e-9)
    assert not np.any(rest.hypergradients[0][:3])
