"""Backtracking gradient descent, whose step lengths are chosen by the objective."""

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
    begins_out_of_bounds,
    hyper,
    in_tiers,
    pairwise,
)

METHODS = [far.ReverseHG, far.ForwardHG]
MODES = pytest.mark.parametrize("method", METHODS)


def armijo(problem, variables, gradients, batch, rate, tau, c):
    """The accepted number of reductions, by trying them on the model itself."""
    start = [variable.numpy() for variable in variables]
    value = float(problem.inner(batch))
    squares = sum(float(tf.reduce_sum(g * g)) for g in gradients)
    reductions = 0
    while True:
        length = rate * tau**reductions
        for variable, w, g in zip(variables, start, gradients, strict=True):
            variable.assign(w - length * g)
        reached = float(problem.inner(batch))
        if reached <= value - c * length * squares:
            break
        reductions += 1
    for variable, w in zip(variables, start, strict=True):
        variable.assign(w)
    return reductions


def accepted(problem, batches, rate, tau, c):
    """The reductions of a whole run, in plain Python; the model is put back."""
    variables = problem.model.trainable_variables
    start, found = [v.numpy() for v in variables], []
    for batch in batches:
        with tf.GradientTape() as tape:
            value = problem.inner(batch)
        gradients = tape.gradient(value, [v.value for v in variables])
        found.append(armijo(problem, variables, gradients, batch, rate, tau, c))
        for variable, g in zip(variables, gradients, strict=True):
            variable.assign(variable - rate * tau ** found[-1] * g)
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)
    return found


@functools.lru_cache(maxsize=1)
def minibatches(c):
    """A problem, the accepted reductions, and what `unrolled` returns for these."""
    problem = Classification()
    rate, tau = problem.hyper(40.0, "rate"), problem.hyper(0.6, "tau")
    batches = far.Batches(problem.train, batch_size=5, seed=3)
    drawn = [batches(t) for t in range(7)]
    found = accepted(problem, drawn, 40.0, 0.6, c)
    assert len(set(found)) > 2 and 0 not in found
    assert found != accepted(problem, drawn, 40.0, 0.6, 0.52 - c)
    rule = reference.gradient_descent(
        lambda t, i: rate * tf.pow(tf.convert_to_tensor(tau), float(found[t]))
    )
    naive = problem.naive([rate, tau], lambda t: drawn[t])
    expected = reference.unrolled(naive, rule, 7)
    bilevel = problem.bilevel(
        far.BacktrackingGradientDescent(rate, tau, c), [rate, tau], inner_data=batches
    )
    return bilevel, found, expected


SEARCHES = pairwise([0.5, 0.02], [False, True], METHODS)


@pytest.mark.parametrize(
    ("c", "jit_compile", "method"),
    in_tiers(SEARCHES, [case for case in SEARCHES if not case[1]]),
)
def test_equals_the_unrolled_reference_with_the_accepted_lengths(
    c, jit_compile, method
):
    """On minibatches: the search takes the batch of its step."""
    bilevel, found, (_, expected, final) = minibatches(c)
    result = method(jit_compile=jit_compile).compute(bilevel, 7)
    assert_close(bilevel.variables, final, 1e-12)
    assert_close(result.hypergradients, expected, 1e-9)
    assert result.choices["reductions"].numpy().tolist() == found


class Bounded:
    """½ (w − target)² with w ≥ 0: by hand."""

    def __init__(self, start, target, **options):
        self.w = keras.Variable(start, dtype="float64", name="w")
        self.w.constraint = keras.constraints.NonNeg()
        self.target = hyper(target, "target")
        self.problem = far.BilevelProblem(
            lambda: 0.5 * (self.w - self.target) ** 2,
            lambda: self.w + self.target,
            [self.w],
            far.BacktrackingGradientDescent(4.0, **options),
            [self.target],
        )


@MODES
def test_the_rule_is_that_of_the_projection(method):
    """From w = 1 to −1: g = 2, all lengths from 1/2 up end at w' = 0.

    L falls from 2 to 1/2 there, and c g (w − w') = 2c: taken at once for c below
    0.75, where ½ (w − 4g + 1)² = 18 would not be. Without the projection only
    the length 1 would do.
    """
    case = Bounded(1.0, -1.0, c=0.74)
    result = method().compute(case.problem, 2)
    assert result.choices["reductions"].numpy().tolist() == [0, 0]
    assert float(case.w) == 0.0 and float(result.hypergradients[0]) == 1.0
    case = Bounded(1.0, -1.0, c=0.76)
    result = method().compute(case.problem, 1)
    # Length 1/4: w' = 1/2, L falls to 9/8 by 7/8, enough for 0.76 · 2 · ½.
    assert result.choices["reductions"].numpy().tolist() == [4]
    assert float(case.w) == 0.5


def test_nan_is_no_decrease():
    """½ log of a negative number, one and two reductions from a good step."""
    w, rate = keras.Variable(1.0, dtype="float64", name="w"), hyper(4.0, "rate")
    problem = far.BilevelProblem(
        lambda: w - 0.5 * tf.math.log(w),
        lambda: 1.0 * w,
        [w],
        far.BacktrackingGradientDescent(rate),
        [rate],
    )
    result = far.ReverseHG().compute(problem, 3)
    assert result.choices["reductions"].numpy().tolist() == [2, 0, 0]
    assert float(w) == 0.5
    assert float(result.hypergradients[0]) == -0.125 * 49.0  # (1 − 4 L'')² from there.


def test_the_backward_pass_searches_for_nothing():
    """A choice that would be another one each time that it is made."""

    class Counting(far.BacktrackingGradientDescent):
        made = 0

        def choose(self, *arguments):
            Counting.made += 1
            return super().choose(*arguments)

    case = Bounded(1.0, -1.0)
    problem = far.BilevelProblem(
        lambda: 0.5 * (case.w - case.target) ** 2,
        lambda: case.w + case.target,
        [case.w],
        Counting(4.0),
        [case.target],
    )
    far.ReverseHG().compute(problem, 2)
    assert Counting.made == 1


@begins_out_of_bounds
@MODES
def test_a_factor_of_zero_where_nothing_is_reduced(method):
    w, tau = keras.Variable(1.0, dtype="float64", name="w"), hyper(0.0, "tau")
    problem = far.BilevelProblem(
        lambda: 0.5 * w * w,
        lambda: 1.0 * w + tau,
        [w],
        far.BacktrackingGradientDescent(0.5, tau),
        [tau],
    )
    assert float(method().compute(problem, 3).hypergradients[0]) == 1.0


@MODES
@pytest.mark.parametrize("limit", [3, 4, 5])
def test_the_limit_of_reductions_is_warned_of(method, limit):
    """From 4 to the 1/4 that it takes there are four."""
    case = Bounded(1.0, -1.0, c=0.76, max_reductions=limit)
    if limit == 5:
        method().compute(case.problem, 1)
    else:
        with pytest.warns(UserWarning, match=f"=?{limit}, in 1 steps, the first .* 0"):
            method().compute(case.problem, 1)
    assert float(case.w) == (0.5 if limit > 3 else 0.0)


def test_it_trains_a_real_time_model():
    """Predictions are those before the step, not of the search."""
    x = np.random.RandomState(0).randn(20, 3).astype("float32")
    y = x[:, :1] * 2.0
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), layer])
    rate = far.Hyperparameter(4.0, name="rate")
    tuned = far.RealTimeModel(
        model,
        [rate],
        far.BacktrackingGradientDescent(rate),
        keras.optimizers.SGD(0.0),
        update_every=2,
        hyper_data=(x, y),
    )
    tuned.compile(loss="mse", metrics=["mae"])
    log = tuned.fit(x, y, batch_size=20, epochs=40, verbose=0)
    assert log.history["mae"][0] == pytest.approx(np.abs(y).mean(), rel=1e-6)
    np.testing.assert_allclose(layer.kernel[:, 0], [2.0, 0.0, 0.0], atol=0.05)


GOLDEN = pairwise([keras.Variable, tf.Variable], [False, True], METHODS)


@pytest.mark.parametrize(
    ("kind", "compiled", "method"),
    in_tiers(GOLDEN, [case for case in GOLDEN if not case[1]]),
)
def test_golden_case_f(kind, compiled, method):
    """FAR-HO's own: (w − L)²/2 + λw²/2, outer (w − 2)²/2 + λ², in closed form.

    One step solves a quadratic exactly where its length is 1/(1 + λ).
    """
    target, value = 10.65158, 0.008921
    w = kind(0.0, dtype=tf.float64, name="w")
    penalty = hyper(value, "penalty")
    problem = far.BilevelProblem(
        lambda: 0.5 * (w - target) ** 2 + 0.5 * penalty * w**2,
        lambda: 0.5 * (w - 2.0) ** 2 + penalty**2,
        [w],
        far.BacktrackingGradientDescent(1.0),
        [penalty],
    )
    result = method(jit_compile=compiled).compute(problem, 200)
    end = target / (1 + value)
    expected = (end - 2.0) * -target / (1 + value) ** 2 + 2 * value
    assert_close([w], [end], 1e-9)
    assert_close(result.hypergradients, [expected], 1e-9)
    assert expected == pytest.approx(-89.5271731, rel=1e-8)


def test_the_search_ends():
    """Where nothing is a decrease: NaN beside the starting point."""
    w = keras.Variable(0.0, dtype="float64", name="w")
    scale = hyper(1.0, "scale")
    problem = far.BilevelProblem(
        lambda: scale * (w + tf.where(w == 0.0, w, np.float64(np.nan))),
        lambda: scale * 1.0,
        [w],
        far.BacktrackingGradientDescent(1.0, max_reductions=3),
        [scale],
    )
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG().compute(problem, 2)


def test_dropout_is_the_same_for_all_lengths():
    """The seeds move on by one draw in each step, whatever the search did."""
    x = np.random.RandomState(0).randn(20, 3).astype("float32")

    def seeds_after(dynamics):
        dropout = keras.layers.Dropout(0.5, seed=1)
        model = keras.Sequential([keras.Input((3,)), dropout, keras.layers.Dense(1)])
        scale = far.Hyperparameter(1.0, name="scale")

        def loss(training):
            return tf.reduce_mean(tf.square(model(x, training=training) - 1.0))

        problem = far.BilevelProblem(
            lambda: scale * loss(True), lambda: loss(False), model, dynamics, [scale]
        )
        far.ReverseHG(jit_compile=False).compute(problem, 5)
        return dropout.seed_generator.state.numpy().tolist()

    searched = seeds_after(far.BacktrackingGradientDescent(8.0))
    assert searched == seeds_after(far.GradientDescent(0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c": 1.5}, "`c` of BacktrackingGradientDescent"),
        ({"c": "half"}, "`c` of BacktrackingGradientDescent"),
        ({"tau": 1.0}, "`tau` of BacktrackingGradientDescent must be in"),
        ({"tau": 0.0}, r"`tau` of BacktrackingGradientDescent must be in \(0.0, 1.0\)"),
        ({"max_reductions": 0}, "`max_reductions` must be an integer"),
    ],
)
def test_errors(arguments, message):
    assert far.BacktrackingGradientDescent(c=np.float32(0.25)).c == 0.25
    with pytest.raises(ValueError, match=message):
        far.BacktrackingGradientDescent(1.0, **arguments)
