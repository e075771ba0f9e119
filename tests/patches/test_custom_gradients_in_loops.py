"""Rules in loops and branches, of which one derivative serves all tapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.custom_rules import (
    AT,
    MODES,
    NUM_STEPS,
    START,
    WIDTH,
    bilevel,
    differences,
    in_a_branch,
    in_a_loop,
    outer,
    squares,
)
from tests.helpers import assert_close


@pytest.mark.parametrize("make", [in_a_loop, in_a_branch])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_rule_in_a_loop_or_branch(make, mode):
    """One derivative serves all tapes there: what would be wrong is refused."""
    objective = make(lambda x, cotangent: 0.5 * cotangent)
    with pytest.raises(
        ValueError, match=r"`inner_objective` calls ruled.*in a loop or"
    ):
        bilevel(objective)
    with pytest.raises(
        ValueError, match=r"`outer_objective` calls ruled.*in a loop or"
    ):
        bilevel(squares(tf.sin), lambda w: objective(w, 0.5))


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_rows_of_a_table_in_a_loop(mode):
    """One twice: TensorFlow gives their gradient as slices, by the rule and without."""

    def outer_of(rule):
        return lambda w: in_a_loop(rule)(tf.gather(w, [0, 2, 0]), 0.5)

    objective = squares(tf.sin)
    true = outer_of(lambda x, cotangent: cotangent * tf.cos(x))
    result = MODES[mode].compute(bilevel(objective, true), NUM_STEPS)
    assert_close(result.hypergradients, differences(objective, true), 1e-7)
    half = outer_of(lambda x, cotangent: 0.5 * cotangent)
    with pytest.raises(ValueError, match=r"`outer_objective` calls ruled.*in a loop"):
        MODES[mode].compute(bilevel(objective, half), 2)


def looped(function, x):
    _, x = tf.while_loop(
        lambda turn, x: turn < 3,
        lambda turn, x: [turn + 1, function(x)],
        [0, x],
        maximum_iterations=3,
    )
    return x


def branched(function, x):
    """What both branches leave out has no derivative at all, where a loop has zeros."""
    return tf.cond(tf.reduce_sum(x) > 0, lambda: function(x), lambda: function(x))


def with_one_left_out(role, derivative, function):
    """Of two variables, one is read by a rule only that leaves it out."""
    w, v = (
        keras.Variable(START, dtype="float64", name=name) for name in ("w", "left_out")
    )
    rate = far.Hyperparameter(AT["rate"], name="rate", dtype="float64")

    @tf.custom_gradient
    def ruled(x, left):
        return function(x, left), lambda c: (c * derivative(x, left), None)

    def through(repeated):
        # In a branch, TensorFlow wants what the rule reads to be made.
        x = repeated(lambda x: ruled(1.0 * x, 1.0 * v.value) + w.value, w.value)
        return tf.reduce_sum(x**2)

    objectives = {
        "inner_objective": lambda: tf.reduce_sum(tf.sin(w.value)) + v.value[0] ** 2,
        "outer_objective": lambda: outer(w.value),
    }
    objectives[role] = lambda: through(looped if role[0] == "i" else branched)
    return far.BilevelProblem(
        **objectives,
        variables=[w, v],
        dynamics=far.GradientDescent(rate),
        hyperparameters=[rate],
    )


def repeated_sign(w, turns):
    x = w
    for _ in range(turns):
        x = np.sign(START) * tf.sin(x) + w
    return tf.reduce_sum(x**2)


LEFT_OUT = {
    "inner_objective": (lambda w: repeated_sign(w, 3), outer),
    "outer_objective": (
        lambda w: tf.reduce_sum(tf.sin(w)),
        lambda w: repeated_sign(w, 1),
    ),
}


@pytest.mark.parametrize("role", LEFT_OUT)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_rule_that_leaves_an_input_out(role, mode):
    """It is right where the function does not move with it, and else is refused."""
    with pytest.raises(
        ValueError, match=rf"`{role}` calls .*ruled in a loop or branch"
    ):
        with_one_left_out(
            role, lambda x, left: left * tf.cos(x), lambda x, left: left * tf.sin(x)
        )
    problem = with_one_left_out(
        role,
        lambda x, left: tf.sign(left) * tf.cos(x),
        lambda x, left: tf.sign(left) * tf.sin(x),
    )
    result = MODES[mode].compute(problem, 2)
    inner, end = LEFT_OUT[role]

    def run(rate):
        w = tf.constant(START)
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = inner(w)
            w -= rate * tape.gradient(value, w)
        return float(end(w))

    assert_close([result.outer_value], [run(AT["rate"])], 1e-12)
    up, down = (run(AT["rate"] + step) for step in (WIDTH, -WIDTH))
    assert_close(result.hypergradients, [(up - down) / (2 * WIDTH)], 1e-7)
