"""Equal problems share a program; problems that differ in anything do not."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.hypergradients import sharing

MODE = far.ReverseHG(jit_compile=False)
LARGE = tf.reshape(tf.range(200, dtype=tf.float64), (20, 10)) / 100  # Is captured.
ALSO_LARGE = tf.reverse(LARGE, [0])


def make(
    points=((1.0, 2.0), (0.5, -1.0), (3.0, 0.0)),
    factor=0.5,
    power=2,
    noise=LARGE,
    scale=LARGE,
    mass=0.9,
    rate=0.1,
    dynamics=far.Momentum,
    swapped=False,
    initial=False,
    calls=None,
    seed=0,
    mode=MODE,
    num_steps=3,
    decides=lambda w: w,
    dtype="float64",
):
    """A ridge regression with everything that a problem can be made of."""
    calls = [] if calls is None else calls
    w = keras.Variable([0.3, -0.2], dtype=dtype, name="w")
    b = keras.Variable(0.1, dtype=dtype, name="b")
    rate = far.Hyperparameter(rate, name="rate", dtype=dtype)
    penalty = far.Hyperparameter(0.2, name="penalty", dtype=dtype)
    inputs = tf.constant(points, dtype)

    def inner(x):
        calls.append("inner")
        error = tf.linalg.matvec(x, w) + b - 1.0
        extra = tf.reduce_sum(noise) * tf.reduce_mean(scale[0]) / 1000
        extra = tf.cast(extra, dtype) * b**2
        return tf.reduce_mean(tf.abs(decides(error)) ** power) * factor + (
            penalty * tf.reduce_sum(w**2) + extra
        )

    def outer(x):
        return tf.reduce_mean((tf.linalg.matvec(x, w) + b) ** 2)

    problem = far.BilevelProblem(
        *(inner, outer, [w, b]),
        dynamics(rate, mass) if dynamics is far.Momentum else dynamics(rate),
        [penalty, rate] if swapped else [rate, penalty],
        inner_data=far.Batches(inputs, batch_size=2, seed=seed),
        outer_data=inputs,
        initial_values=[(b, penalty)] if initial else None,
    )
    result = mode.compute(problem, num_steps)
    return problem, [float(g) for g in result.hypergradients]


def alone(**changes):
    """The hypergradient where nothing is shared; nor is it afterwards."""
    sharing.forget()
    found = make(**changes)[1]
    sharing.forget()
    return found


def named(cases):
    """Cases with what is changed in them for a name."""
    return [pytest.param(changes, id="-".join(changes)) for changes in cases]


@pytest.mark.parametrize(
    "changes",
    named(
        [
            {},
            {"points": ((2.0, 2.0), (1.5, -1.0), (3.0, 1.0))},
            {"rate": 0.05},
            {"seed": 3},
            {"noise": ALSO_LARGE * 2, "scale": ALSO_LARGE},
            {"num_steps": 7},
        ]
    ),
)
def test_what_is_given_anew_is_shared(changes):
    """Values that are no part of the program: data, hyperparameters, captures."""
    separate = {"noise": LARGE + 0.0} | changes  # Two tensors in both problems.
    expected = alone(**separate)
    make(noise=LARGE + 0.0)
    calls = []
    _, found = make(calls=calls, **separate)
    assert calls == ["inner"]  # Only to see that it is the same problem.
    assert found == expected
    assert len(sharing._kept) == 1


@pytest.mark.parametrize(
    "changes",
    named(
        [
            {"factor": 0.25},
            {"power": 3},
            {"mass": 0.8},
            {"dynamics": far.GradientDescent},
            {"swapped": True},
            {"initial": True},
            {"scale": ALSO_LARGE},  # Two tensors where there was one.
            {"points": ((1.0, 2.0), (0.5, -1.0))},
            {"mode": far.ReverseHG(jit_compile=False, truncation=2)},
            {"mode": far.ForwardHG(jit_compile=False)},
            {"decides": tf.tanh},
            {"dtype": "float32"},
            {"num_steps": 9},
        ]
    ),
)
def test_what_is_another_problem_is_not_shared(changes):
    expected = alone(**changes)
    make()
    assert make(**changes)[1] == expected
    assert len(sharing._kept) == 2


def test_python_functions_are_not_shared():
    """Derivatives and operations in Python are unknown to the graph."""

    def custom(strength):
        @tf.custom_gradient
        def reversed_sign(x):
            return x, lambda dy: -strength * dy

        return reversed_sign

    expected = [alone(decides=custom(strength)) for strength in (0.5, 0.25)]
    found = [make(decides=custom(strength))[1] for strength in (0.5, 0.25)]
    assert found == expected
    assert expected[0] != expected[1]
    assert not sharing._kept


def test_state_beside_the_weights_is_each_problems_own():
    """BatchNorm's statistics, and the values of a layer that is not trained."""

    def train(factor):
        keras.utils.set_random_seed(1)
        norm = keras.layers.BatchNormalization(momentum=0.5)
        frozen = keras.layers.Dense(20, trainable=False)
        model = keras.Sequential(
            [keras.Input((20,)), frozen, norm, keras.layers.Dense(1)]
        )
        frozen.kernel.assign(frozen.kernel * factor)
        rate = far.Hyperparameter(0.1, name="rate")
        x = tf.random.stateless_normal([8, 20], seed=[0, 1])
        problem = far.BilevelProblem(
            lambda x: tf.reduce_mean((model(x, training=True) - 1.0) ** 2),
            lambda x: tf.reduce_mean((model(x, training=False) - 1.0) ** 2),
            *(model, far.GradientDescent(rate), [rate]),
            inner_data=x,
            outer_data=x,
        )
        (gradient,) = MODE.compute(problem, 3).hypergradients
        return float(gradient), norm.moving_variance.numpy()

    def freshly(factor):
        sharing.forget()
        return train(factor)

    expected = [freshly(factor) for factor in (1.0, 3.0)]
    sharing.forget()
    for (gradient, variance), factor in zip(expected, (1.0, 3.0), strict=True):
        found = train(factor)
        assert found[0] == gradient
        np.testing.assert_array_equal(found[1], variance)
    assert len(sharing._kept) == 1
    assert expected[0][0] != expected[1][0]


def test_episodes_are_told_apart():
    """A batch of (step, episode) that reads the episode, and one that does not."""

    def train(data):
        w = keras.Variable(1.0, dtype="float64")
        rate = far.Hyperparameter(0.1, dtype="float64")
        problem = far.BilevelProblem(
            lambda x: (w - x) ** 2,
            lambda: w**2,
            *([w], far.GradientDescent(rate), [rate]),
            inner_data=data,
        )
        (gradient,) = MODE.compute(problem, 2, episodes=[1, 2]).hypergradients
        return float(gradient)

    def by_both(step, episode):
        return tf.cast(step + episode, tf.float64)

    def by_step(step, episode):
        return tf.cast(step + tf.constant(0), tf.float64)

    # w_2 = (1 − 2η)² + 2η (1 − 2η) x_0 + 2η x_1, and the derivative of its square.
    def closed_form(x_0, x_1, rate=0.1):
        a = 1 - 2 * rate
        w = a**2 + 2 * rate * (a * x_0 + x_1)
        return 2 * w * (-4 * a + 2 * (a - 2 * rate) * x_0 + 2 * x_1)

    assert train(by_both) == pytest.approx(
        (closed_form(1, 2) + closed_form(2, 3)) / 2, rel=1e-12
    )
    assert train(by_step) == pytest.approx(closed_form(0, 1), rel=1e-12)


def test_nothing_of_a_problem_is_kept_alive():
    problem, _ = make()
    watched = weakref.ref(problem)
    del problem
    gc.collect()
    assert watched() is None
    assert len(sharing._kept) == 1


def test_few_programs_are_kept(monkeypatch):
    monkeypatch.setattr(sharing, "_MOST", 2)
    for factor in (1.0, 2.0, 3.0):
        make(factor=factor)
    assert len(sharing._kept) == 2
    expected = alone(factor=1.0)
    assert make(factor=1.0)[1] == expected
