"""A naive unrolled reference: every step under one tape, in Python.

It shares no code with far_ho_tf: update rules are written out again here, and
variables are replaced by Keras' own `StatelessScope`.
"""

import keras
import tensorflow as tf


def unrolled(problem, update, num_steps):
    """The hypergradient of a run of `num_steps`, by plain backpropagation.

    Args:
        problem: A dict with the objectives, variables, hyperparameters, state
            (other Keras variables that the inner objective changes), the
            batches (callable(t) -> batch), the outer batch, and optionally
            `initial` (callable() -> list of initial values).
        update: Callable(t, variable index, w, g, slots) -> (w, slots), where
            slots is `None` at first. It reads hyperparameters as usual.
        num_steps: Integer.

    Returns:
        Outer value, list of hypergradients, final values of variables.
    """
    variables, hypers = problem["variables"], problem["hyperparameters"]
    state = problem.get("state", [])
    values = [tf.convert_to_tensor(h) for h in hypers]
    kept = [tf.convert_to_tensor(v) for v in state]
    with tf.GradientTape() as tape:
        tape.watch(values)
        known = list(zip(hypers, values, strict=True))
        ws = [tf.convert_to_tensor(v) for v in variables]
        if "initial" in problem:
            with keras.StatelessScope(known):
                ws = problem["initial"]()
        slots = [None] * len(ws)
        for t in range(num_steps):
            mapping = known + list(zip(variables + state, ws + kept, strict=True))
            with tf.GradientTape() as inner:
                inner.watch(ws)
                with keras.StatelessScope(mapping, collect_losses=True) as scope:
                    loss = call(problem["inner"], problem["batch"](t))
            gradients = inner.gradient(
                loss, ws, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            kept = [
                old
                if scope.get_current_value(v) is None
                else scope.get_current_value(v)
                for v, old in zip(state, kept, strict=True)
            ]
            with keras.StatelessScope(known):
                moved = [
                    update(t, i, w, tf.convert_to_tensor(g), s)
                    for i, (w, g, s) in enumerate(
                        zip(ws, gradients, slots, strict=True)
                    )
                ]
            ws, slots = [list(column) for column in zip(*moved, strict=True)]
        mapping = known + list(zip(variables + state, ws + kept, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True):
            value = call(problem["outer"], problem["outer_batch"])
    gradients = tape.gradient(value, values)
    return value, [tf.convert_to_tensor(g) for g in gradients], ws


def call(objective, batch):
    return objective() if batch is None else objective(batch)


def gradient_descent(rate):
    def update(t, i, w, g, slots):
        return w - rate(t, i) * g, slots

    return update


def momentum(rate, mass, nesterov=False):
    def update(t, i, w, g, m):
        m = g if m is None else mass(t, i) * m + g
        step = g + mass(t, i) * m if nesterov else m
        return w - rate(t, i) * step, m

    return update


def adam(rate, beta_1, beta_2, epsilon):
    """Kingma and Ba's algorithm 1, with ε as Keras has it ("epsilon hat")."""

    def update(t, i, w, g, slots):
        m, v = (0.0, 0.0) if slots is None else slots
        b1, b2 = beta_1(t, i), beta_2(t, i)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        k = tf.cast(t + 1, w.dtype)
        scaled = rate(t, i) * tf.sqrt(1 - tf.pow(b2, k)) / (1 - tf.pow(b1, k))
        return w - scaled * m / (tf.sqrt(v) + epsilon(t, i)), (m, v)

    return update


def constant(value):
    """A number or a Hyperparameter as a rule's argument."""
    return lambda t, i: tf.convert_to_tensor(value)
