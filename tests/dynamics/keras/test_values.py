"""Keras' optimizers as dynamics: what they do, and zeros."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.dynamics_table import KERAS
from tests.helpers import assert_close, hyper, in_tiers, slope
from tests.keras_problem import FEATURES, SCHEDULE, Small

optimizers = keras.optimizers
ALL_RATES = list(itertools.product([True, False], [0.2, SCHEDULE]))
pytestmark = pytest.mark.filterwarnings("ignore:.*moves weights by a sign")


@pytest.mark.parametrize("name", in_tiers(KERAS, ["SGD", "Adam", "Adafactor"]))
def test_values_equal_keras_over_50_steps(name):
    """As it is accepted where a dynamics is.

    At a learning rate at which Adafactor's float32 does not turn chaotic.
    """
    kind, numbers, options, _ = KERAS[name]
    numbers = numbers | {"learning_rate": numbers["learning_rate"] / 4}
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        problem = Small(dtype)
        expected = problem.by_keras(kind(**numbers, **options), 50)
        bilevel = problem.bilevel(kind(**numbers, **options))
        far.ReverseHG(jit_compile=False).compute(bilevel, 50)
        assert_close(problem.model.get_weights(), expected, tolerance)
        assert not np.allclose(expected[0], problem.start[0], rtol=1e-2)


@pytest.mark.parametrize("name", in_tiers(FEATURES, ["a schedule", "global_clipnorm"]))
def test_what_else_keras_does_is_done_too(name):
    """Values as Keras', hypergradients as finite differences."""
    problem = Small()
    expected = problem.by_keras(FEATURES[name](), 9)
    bilevel = problem.bilevel(FEATURES[name]())
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(bilevel, 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)
    found = slope(mode, bilevel, 9, 1e-6, (problem.penalty, 1.0))
    np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-7)
    forward = far.ForwardHG(jit_compile=False).compute(bilevel, 9)
    assert_close(forward.hypergradients, result.hypergradients, 1e-9)


def test_variables_without_decay():
    def made(problem):
        optimizer = optimizers.AdamW(0.05, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[problem.model.weights[0]])
        return optimizer

    problem = Small()
    expected = problem.by_keras(made(problem), 9)
    far.ReverseHG(jit_compile=False).compute(problem.bilevel(made(problem)), 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.AdamW(0.1, weight_decay=0.5),
        lambda: far.AdamW(0.1, weight_decay=0.5),
        lambda: optimizers.SGD(
            0.1, weight_decay=0.5, use_ema=True, ema_overwrite_frequency=2
        ),
    ],
    ids=["Keras' AdamW", "AdamW", "averages"],
)
@pytest.mark.filterwarnings("ignore:.*stay where they are")
def test_variables_without_a_gradient_stay(make):
    """As under Keras' `apply`; neither decay nor constraint moves them."""
    used, idle = (
        keras.Variable([1.0, -2.0], dtype="float64", name=name) for name in "ui"
    )
    idle.constraint = keras.constraints.NonNeg()
    scale = hyper(1.0, "scale")
    problem = far.BilevelProblem(
        lambda: scale * tf.reduce_sum(tf.square(used)),
        lambda: tf.reduce_sum(used * idle),
        [used, idle],
        make(),
        [scale],
    )
    for method in (far.ReverseHG, far.ForwardHG):
        method().compute(problem, 3)
        assert idle.numpy().tolist() == [1.0, -2.0]
        assert abs(float(used[0])) < 0.9


@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
def test_variables_without_decay_are_known_by_either_kind(kind):
    values = [kind([1.0, 2.0], dtype="float64", name=name) for name in "ab"]
    optimizer = optimizers.SGD(0.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[values[0]])
    rate = hyper(0.5, "rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(0.0 * (values[0] + values[1])),
        lambda: tf.reduce_sum(values[0] + values[1]),
        values,
        far.KerasDynamics(optimizer, {"learning_rate": rate}),
        [rate],
    )
    far.ReverseHG().compute(problem, 1)
    assert [v.numpy().tolist() for v in values] == [[1.0, 2.0], [0.75, 1.5]]


@pytest.mark.parametrize(
    ("scheduled", "own"), in_tiers(ALL_RATES, [(True, 0.2), (False, SCHEDULE)])
)
def test_adafactor_asks_whether_its_rate_is_a_schedule(own, scheduled):
    """By what takes the place of its own: relative steps, or none."""
    problem = Small()
    rate = SCHEDULE if scheduled else 0.125
    expected = problem.by_keras(optimizers.Adafactor(rate), 9)
    dynamics = far.KerasDynamics(optimizers.Adafactor(own), {"learning_rate": rate})
    far.ReverseHG(jit_compile=False).compute(problem.bilevel(dynamics), 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)


def test_nan_is_not_hidden_by_the_safe_root():
    problem = Small()
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG().compute(problem.bilevel(optimizers.Adam(beta_2=1.5)), 3)

    def rate(step):
        return tf.sqrt(tf.cast(step, tf.float64) - 1.0)  # At first √−1.

    dynamics = far.KerasDynamics(optimizers.SGD(), {"learning_rate": rate})
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG().compute(problem.bilevel(dynamics), 3)


class Rooted(optimizers.schedules.LearningRateSchedule):
    """√ of a hyperparameter times the step: √0 at first."""

    def __init__(self, root):
        self.root = root

    def __call__(self, step):
        return tf.sqrt(self.root * tf.cast(step, "float64"))


@pytest.mark.parametrize("own", in_tiers([True, False], [False]))
def test_roots_of_schedules_are_not_made_safe(own):
    """Whether the schedule is the optimizer's own or takes its place."""
    problem, root = Small(), hyper(0.01, "root")
    schedule = Rooted(root)
    dynamics = (
        optimizers.SGD(schedule)
        if own
        else far.KerasDynamics(optimizers.SGD(), {"learning_rate": schedule})
    )
    with pytest.raises(far.NonFiniteError, match="derivative of a root"):
        far.ReverseHG(jit_compile=True).compute(problem.bilevel(dynamics, [root]), 3)


GRAPH = far.ReverseHG(jit_compile=False)
MODES = {
    "reverse": GRAPH,
    "reverse, XLA": far.ReverseHG(jit_compile=True),
    "forward": far.ForwardHG(jit_compile=False),
}


@functools.lru_cache(maxsize=1)
def with_a_zero_feature(name):
    """The problem, and dE by finite differences for its first hyperparameter."""
    kind, numbers, options, _ = KERAS[name]
    problem = Small()
    problem.train[0][:, 0] = 0.0
    problem.penalty.assign(0.0)
    hypers = [hyper(value, key) for key, value in numbers.items()]
    dynamics = far.KerasDynamics(
        kind(**options), dict(zip(numbers, hypers, strict=True))
    )
    bilevel = problem.bilevel(dynamics, hypers)
    return bilevel, slope(GRAPH, bilevel, 4, 1e-6, (hypers[0], 1.0))


ZERO = list(itertools.product(KERAS, MODES))
FIRST_ZERO = [case for case in ZERO if case[0] in ("Adagrad", "Adam", "Lamb")]


@pytest.mark.parametrize(("name", "mode"), in_tiers(ZERO, FIRST_ZERO))
def test_gradients_of_zero(name, mode):
    """A feature that is always zero: √0, and no NaN.

    In reverse mode a graph of TensorFlow gives 0 for 0/0 by itself, others NaN.
    """
    bilevel, found = with_a_zero_feature(name)
    result = MODES[mode].compute(bilevel, 4)
    np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-6)
    # The penalty's gradient is zero here, its hypergradient is not.
    if name not in ("Lion", "Lamb"):
        assert abs(result.hypergradients[-1]) > 1e-3


@pytest.mark.parametrize(
    "name",
    in_tiers(
        [name for name in KERAS if name not in ("Adafactor", "Lamb")],
        ["SGD", "RMSprop", "Adamax"],
    ),
)
def test_all_gradients_are_zero(name):
    """With the numbers that Keras has by default, in float32.

    Adafactor and Lamb divide by the norm of a variable's whole update, which has
    no derivative there.
    """
    kind, _, options, _ = KERAS[name]
    rate = far.Hyperparameter(0.01, name="rate")
    problem = Small("float32")
    problem.penalty.assign(0.0)
    far_off = problem.model(problem.train[0]).numpy()
    problem.train = (problem.train[0], far_off)
    dynamics = far.KerasDynamics(kind(**options), {"learning_rate": rate})
    bilevel = problem.bilevel(dynamics, [rate])
    for method in (far.ReverseHG, far.ForwardHG):
        result = method(jit_compile=False).compute(bilevel, 3)
        assert np.isfinite(result.hypergradients).all()
