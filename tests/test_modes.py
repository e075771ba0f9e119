"""Gradient modes against the naive unrolled reference."""

import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference, rules
from tests.helpers import Classification, assert_close
from tests.reference import constant

NUM_STEPS = 7
MODES = pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])


def by_step(vector):
    """A schedule that reads a vector of hyperparameters."""
    return lambda step: tf.convert_to_tensor(vector)[step]


def _scalars(problem):
    rate = problem.hyper(0.3, "rate")
    return far.GradientDescent(rate), [rate], reference.gradient_descent(constant(rate))


def _momentum(problem, nesterov=False):
    rate, mass = problem.hyper(0.2, "rate"), problem.hyper(0.8, "mass")
    rule = reference.momentum(constant(rate), constant(mass), nesterov)
    return far.Momentum(rate, mass, nesterov=nesterov), [rate, mass], rule


def _nesterov(problem):
    return _momentum(problem, nesterov=True)


def _adam(problem):
    hypers = [
        problem.hyper(value, name)
        for value, name in ((0.05, "a"), (0.8, "b1"), (0.95, "b2"), (1e-3, "e"))
    ]
    rule = reference.adam(*(constant(hyper) for hyper in hypers))
    return far.Adam(*hypers), hypers, rule


def _adamw(problem):
    values = (("a", 0.05), ("d", 0.2), ("b1", 0.8), ("b2", 0.95), ("e", 1e-3))
    hypers = {name: problem.hyper(value, name) for name, value in values}
    rate, decay, *others = (constant(hyper) for hyper in hypers.values())
    rule = rules.adam(rate, *others, decay=decay)
    return far.AdamW(*hypers.values()), list(hypers.values()), rule


def _rmsprop(problem):
    hypers = [
        problem.hyper(value, name)
        for value, name in ((0.02, "a"), (0.8, "rho"), (0.5, "mass"), (1e-3, "e"))
    ]
    rule = rules.rmsprop(*(constant(hyper) for hyper in hypers))
    return far.RMSprop(*hypers), hypers, rule


def _momentum_by_step(problem):
    steps = np.arange(NUM_STEPS)
    rates = problem.hyper(0.1 + 0.02 * steps, "rates")
    masses = problem.hyper(0.9 - 0.05 * steps, "masses")
    rule = reference.momentum(
        lambda t, i: tf.convert_to_tensor(rates)[t],
        lambda t, i: tf.convert_to_tensor(masses)[t],
    )
    return far.Momentum(by_step(rates), by_step(masses)), [rates, masses], rule


def _adam_by_step(problem):
    rates = problem.hyper(0.02 + 0.01 * np.arange(NUM_STEPS), "rates")
    betas = problem.hyper(0.9 - 0.05 * np.arange(NUM_STEPS), "betas")
    rule = reference.adam(
        lambda t, i: tf.convert_to_tensor(rates)[t],
        lambda t, i: tf.convert_to_tensor(betas)[t],
        constant(np.array(0.99, problem.dtype)),
        constant(np.array(1e-3, problem.dtype)),
    )
    dynamics = far.Adam(by_step(rates), by_step(betas), beta_2=0.99, epsilon=1e-3)
    return dynamics, [rates, betas], rule


def _momentum_by_variable(problem):
    """Pairs: a layer with a scalar, variables with a scalar and a schedule."""
    first, second = problem.model.layers
    one = problem.hyper(0.1, "one")
    steps = problem.hyper(0.2 + 0.01 * np.arange(NUM_STEPS), "steps")
    mass = problem.hyper(0.7, "mass")
    dynamics = far.Momentum(
        [(first, one), (second.kernel, by_step(steps)), (second.bias, 0.25)], mass
    )
    rule = reference.momentum(
        lambda t, i: {2: steps[t], 3: np.array(0.25, problem.dtype)}.get(
            i, tf.convert_to_tensor(one)
        ),
        constant(mass),
    )
    return dynamics, [one, steps, mass], rule


def _adam_by_pattern(problem):
    second = problem.model.layers[1]
    one, two = problem.hyper(0.1, "one"), problem.hyper(0.02, "two")
    dynamics = far.Adam(
        {f"{second.name}/": two, ".*/kernel": one, ".*": 0.03}, epsilon=1e-3
    )
    rates = [one, np.array(0.03, problem.dtype), two, two]
    numbers = [np.array(n, problem.dtype) for n in (0.9, 0.999, 1e-3)]
    rule = reference.adam(
        lambda t, i: tf.convert_to_tensor(rates[i]), *(constant(n) for n in numbers)
    )
    return dynamics, [one, two], rule


def _rate_per_weight(problem):
    kernel = problem.model.layers[0].kernel
    rates = problem.hyper(0.1 + np.random.RandomState(3).rand(*kernel.shape), "rates")
    dynamics = far.GradientDescent([(kernel, rates), (problem.model, 0.2)])
    rule = reference.gradient_descent(
        lambda t, i: tf.convert_to_tensor(
            rates if i == 0 else np.array(0.2, problem.dtype)
        )
    )
    return dynamics, [rates], rule


DYNAMICS = [
    _scalars,
    _momentum,
    _nesterov,
    _adam,
    _adamw,
    _rmsprop,
    _momentum_by_step,
    _adam_by_step,
    _momentum_by_variable,
    _adam_by_pattern,
    _rate_per_weight,
]


@MODES
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("make", DYNAMICS)
def test_equals_the_unrolled_reference(method, make, jit_compile):
    problem = Classification()
    dynamics, hypers, rule = make(problem)
    value, expected, final = reference.unrolled(problem.naive(hypers), rule, NUM_STEPS)
    bilevel = problem.bilevel(dynamics, hypers)
    result = method(jit_compile=jit_compile).compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(problem.model.trainable_variables, final, 1e-12)


@MODES
@pytest.mark.parametrize(
    ("make", "jit_compile"),
    [*((make, False) for make in DYNAMICS), (_momentum, True), (_adam, True)],
)
def test_float32_is_close_to_float64(method, make, jit_compile):
    results = []
    for dtype in ("float64", "float32"):
        problem = Classification(dtype)
        dynamics, hypers, _ = make(problem)
        bilevel = problem.bilevel(dynamics, hypers)
        mode = method(jit_compile=jit_compile)
        results.append(mode.compute(bilevel, NUM_STEPS))
    exact, single = results
    assert all(g.dtype == tf.float32 for g in single.hypergradients)
    assert_close(single.hypergradients, exact.hypergradients, 1e-4)


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


@MODES
@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize(
    "kind",
    ["full", "batches", "dataset", "uneven dataset", "callable", "slicing callable"],
)
def test_every_kind_of_data(method, kind, jit_compile):
    problem = Classification()
    dynamics, hypers, rule = _momentum(problem)
    data, batches = batch_kinds(problem)[kind]
    _, expected, _ = reference.unrolled(
        problem.naive(hypers, lambda t: batches[t]), rule, NUM_STEPS
    )
    result = method(jit_compile=jit_compile).compute(
        problem.bilevel(dynamics, hypers, inner_data=data), NUM_STEPS
    )
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
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_one_trace_per_problem_and_number_of_steps(method, jit_compile):
    """The objectives' Python runs in the first hyper-iteration only."""
    calls = []
    problem = Classification()
    dynamics, hypers, _ = _momentum(problem)
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
    mode.compute(bilevel, 4)
    assert len(calls) > traced


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
    rest = mode.compute(bilevel, 3, state=half.state, first_step=3)
    assert_close(rest.state.variables, whole.state.variables, 1e-14)
    assert_close([rest.hypergradients[0][3:]], [whole.hypergradients[0][3:]], 1e-9)
    assert not np.any(rest.hypergradients[0][:3])
