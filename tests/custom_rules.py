"""Runs under rules that are no derivatives, and differences of plain ones.

Plain are a loop in Python and eager tapes, without far_ho_tf.
"""

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far

NUM_STEPS = 3
WIDTH = 1e-6
MODES = {
    "reverse": far.ReverseHG(jit_compile=False),
    "forward": far.ForwardHG(jit_compile=False),
    "reverse, XLA": far.ReverseHG(jit_compile=True),
    "forward, XLA": far.ForwardHG(jit_compile=True),
    "checkpoints": far.ReverseHG(jit_compile=False, checkpointing="sqrt"),
}
START = np.array([0.7, -0.4, 0.3])
AT = {"rate": 0.1, "strength": 0.8}


def ruled(rule, function=lambda x: x):
    """The function under a rule of (x, cotangent)."""

    @tf.custom_gradient
    def under_rule(x):
        return function(x), lambda cotangent: rule(x, cotangent)

    return under_rule


def squares(function):
    return lambda w, strength: tf.reduce_sum((function(w) - strength) ** 2)


def in_a_loop(rule):
    sine = ruled(rule, tf.sin)

    def objective(w, strength):
        def body(turn, x):
            return [turn + 1, sine(x) * strength + w]

        _, x = tf.while_loop(
            *(lambda turn, x: turn < 3, body, [0, w]), maximum_iterations=3
        )
        return tf.reduce_sum(x**2)

    return objective


def in_a_branch(rule):
    sine = ruled(rule, tf.sin)

    def objective(w, strength):
        def branch():  # In which TensorFlow wants what the rule reads to be made.
            return sine(strength * w) ** 2

        return tf.reduce_sum(tf.cond(tf.reduce_sum(w) > 0, branch, lambda: w**3))

    return objective


def outer(w):
    """Under a rule, too."""
    return tf.reduce_sum(ruled(lambda x, cotangent: 2.0 * cotangent, tf.exp)(w))


def plain_run(objective, rate, strength, outer=outer):
    """E(w_T) of gradient descent, step by step."""
    w, strength = tf.constant(START), tf.constant(strength, tf.float64)
    for _ in range(NUM_STEPS):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = objective(w, strength)
        w -= rate * tf.convert_to_tensor(tape.gradient(value, w))
    return float(outer(w))


def differences(objective, outer=outer):
    found = []
    for name, value in AT.items():
        up, down = (AT | {name: value + step} for step in (WIDTH, -WIDTH))
        values = [plain_run(objective, **at, outer=outer) for at in (up, down)]
        found.append((values[0] - values[1]) / (2 * WIDTH))
    return found


def bilevel(objective, outer_objective=outer):
    w = keras.Variable(START, dtype="float64", name="w")
    rate, strength = (
        far.Hyperparameter(value, name=name, dtype="float64")
        for name, value in AT.items()
    )
    return far.BilevelProblem(
        inner_objective=lambda: objective(w.value, strength.value),
        outer_objective=lambda: outer_objective(w.value),
        variables=[w],
        dynamics=far.GradientDescent(rate),
        hyperparameters=[rate, strength],
    )
