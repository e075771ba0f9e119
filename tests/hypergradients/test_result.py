"""Results: read by name, printed in few words; names of before."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close

DTYPE = "float64"


def quadratic(rate, target=3.0):
    """w ← w − η (w − target), outer (w − 1)²/2."""
    w = keras.Variable(np.zeros(650), dtype=DTYPE, name="w")
    return far.BilevelProblem(
        inner_objective=lambda: 0.5 * tf.reduce_sum((w - target) ** 2),
        outer_objective=lambda: 0.5 * tf.reduce_mean((w - 1.0) ** 2),
        variables=[w],
        dynamics=far.GradientDescent(rate),
        hyperparameters=[rate],
    )


def hypergradient(rate, target, num_steps):
    """(w_T − 1) dw_T/dη, of w_T = target (1 − (1 − η)^T)."""
    w = target * (1 - (1 - rate) ** num_steps)
    return (w - 1) * target * num_steps * (1 - rate) ** (num_steps - 1)


def hyper(value, name):
    return far.Hyperparameter(value, dtype=DTYPE, name=name)


def test_by_name():
    w = keras.Variable(2.0, dtype=DTYPE, name="w")
    rates = [hyper(0.1, "rate"), hyper(0.2, "rate"), hyper([1.0, 2.0], "weights")]
    problem = far.BilevelProblem(
        lambda: w * w * (rates[0] + 2 * rates[1] + tf.reduce_sum(rates[2])),
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(0.1),
        rates,
    )
    result = far.ReverseHG().compute(problem, 1)
    assert list(result.by_name) == ["rate", "rate_1", "weights"]
    # w_1 = w (1 − 0.2 Σ).
    assert_close(list(result.by_name.values()), [-0.4, -0.8, [-0.4, -0.4]], 1e-12)


def test_one_name_in_results_and_logs():
    w = keras.Variable(2.0, dtype=DTYPE, name="w")
    both = [hyper([1.0, 2.0], "h"), hyper(0.1, "h")]
    problem = far.BilevelProblem(
        lambda: w * w * tf.reduce_sum(both[0]),
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(both[1]),
        both,
    )
    tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.0))
    history = tuner.fit(1, 1, verbose=0).history
    assert history["h_1"] == [0.1]
    assert "h" not in history
    result = tuner.run(1)
    # w_1 = w (1 − 2 η Σ).
    assert_close([result.by_name["h_1"]], [-12.0], 1e-12)


def test_a_result_is_short():
    rate = hyper(0.1, "rate")
    problem = quadratic(rate)
    result = far.ForwardHG().compute(problem, 5)
    value = hypergradient(0.1, 3.0, 5)
    assert f"hypergradients={{rate: {value:.4g}}}" in repr(result)
    assert "num_steps=5" in repr(result)
    for printed in (result, result.end, result.state, problem):
        assert len(repr(printed)) < 300
    assert "650 weights" in repr(problem)
    assert "(650,)" in repr(result.state)
    tuner = far.HyperOptimizer(problem)
    tuner.run(5)
    assert "hyper_iterations=1" in repr(tuner)
    assert repr(problem) in repr(tuner)


def test_a_plan_is_short(capsys):
    plan = far.plan(quadratic(hyper(0.1, "rate")), 5)
    assert "training runs" in capsys.readouterr().out
    assert "recommended=" in repr(plan)
    assert len(repr(plan)) < 300


def test_many_hyperparameters():
    rate, weights = hyper(0.1, "rate"), hyper(np.ones(650), "weights")
    w = keras.Variable(np.zeros(650), dtype=DTYPE, name="w")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(weights * (w - 1.0) ** 2),
        lambda: tf.reduce_sum(w),
        [w],
        far.GradientDescent(rate),
        [rate, weights],
    )
    result = far.ReverseHG().compute(problem, 1)
    # w_1 = 2 η weights.
    assert "rate: 1300, weights: (650,) of norm" in repr(result)
    norm = 0.2 * np.sqrt(650)
    assert f"of norm {norm:.4g}" in repr(result)


def test_the_mean_over_problems():
    rate = hyper(0.1, "rate")
    problems = [quadratic(rate, target) for target in (3.0, 5.0)]
    tuner = far.HyperOptimizer(problems, optimizer=keras.optimizers.SGD(0.0))
    mean = tuner.run(4)
    assert isinstance(mean, far.MeanResult)
    each = [hypergradient(0.1, target, 4) for target in (3.0, 5.0)]
    assert_close([mean.by_name["rate"]], [np.mean(each)], 1e-12)
    found = [result.hypergradients[0] for result in mean.results]
    assert_close(found, each, 1e-12)
    assert_close(
        [mean.outer_values], [[float(one.outer_value) for one in mean.results]], 1e-15
    )
    assert len(repr(mean)) < 300
    with pytest.warns(FutureWarning, match=r"one\.state for one in result\.results"):
        assert mean.state == [one.state for one in mean.results]
    with pytest.raises(AttributeError, match="'stat'"):
        _ = mean.stat
    assert [status.compiler for status in tuner.status] == ["xla", "xla"]
    assert tuner.history is None


def test_residuals_under_their_name_of_before():
    with pytest.warns(FutureWarning, match="`keep_residuals`") as told:
        mode = far.ReverseHG(keep_products=False)
    assert told[0].filename == __file__
    assert mode == far.ReverseHG(keep_residuals=False)
    assert repr(mode) == repr(far.ReverseHG(keep_residuals=False))
    with (
        pytest.warns(FutureWarning),
        pytest.raises(TypeError, match="give one of them"),
    ):
        far.ReverseHG(keep_residuals=True, keep_products=False)
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ValueError, match="`keep_residuals` must be True, False"),
    ):
        far.ReverseHG(keep_products="some")


def test_an_outer_value_beyond_its_limit_is_finite():
    rate = hyper(0.1, "rate")
    tuner = far.HyperOptimizer(quadratic(rate))
    with pytest.raises(far.DivergenceError, match=r"above outer_limit=0\.05"):
        tuner.fit(3, 2, outer_limit=0.05, verbose=0)
    # As which it was raised before.
    assert issubclass(far.DivergenceError, far.NonFiniteError)
