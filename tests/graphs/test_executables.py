"""Functions are named by what they compute: equal ones alike, others differently."""

import gc
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

import far_ho_tf as far
from tests.helpers import traces_seen

MODE = far.ReverseHG(jit_compile=False)
LARGE = tf.reshape(tf.range(200, dtype=tf.float64), (20, 10)) / 100  # Is captured.


def make(
    points=((1.0, 2.0), (0.5, -1.0), (3.0, 0.0)),
    factor=0.5,
    noise=LARGE,
    mass=0.9,
    rate=0.1,
    swapped=False,
    initial=False,
    seed=0,
    num_steps=3,
    mode=MODE,
    width=2,
):
    """A ridge regression with everything that a problem can be made of."""
    keras.layers.Dense(width)  # Counts in the names of layers.
    layer = keras.layers.Dense(1, dtype="float64", kernel_initializer="ones")
    layer.build((None, 2))
    w, b = layer.trainable_variables
    rate = far.Hyperparameter(rate, name="rate", dtype="float64")
    penalty = far.Hyperparameter(0.2, name="penalty", dtype="float64")
    inputs = tf.constant(points, tf.float64)

    def inner(x):
        extra = tf.reduce_sum(noise) / 1000 * tf.reduce_sum(b**2)
        error = tf.reduce_mean((layer(x) - 1.0) ** 2)
        return factor * error + penalty * tf.reduce_sum(w**2) + extra

    problem = far.BilevelProblem(
        *(inner, lambda x: tf.reduce_mean(layer(x) ** 2), [w, b]),
        far.Momentum(rate, mass),
        [penalty, rate] if swapped else [rate, penalty],
        inner_data=far.Batches(inputs, batch_size=2, seed=seed),
        outer_data=inputs,
        initial_values=[(b, lambda: penalty[tf.newaxis])] if initial else None,
    )
    return mode.compute(problem, num_steps).hypergradients


def name_of(monkeypatch, **changes):
    with monkeypatch.context() as patch:
        seen = traces_seen(patch)
        make(**changes)
    (executable,) = seen
    return executable._function.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"points": ((2.0, 2.0), (1.5, -1.0), (3.0, 1.0))},
        {"rate": 0.05},
        {"seed": 3},
        {"noise": LARGE * 2},
        {"num_steps": 7},
    ],
    ids=lambda changes: "-".join(changes) or "nothing",
)
def test_values_do_not_count(changes, monkeypatch):
    """Of data, hyperparameters and large tensors that an objective captures."""
    assert name_of(monkeypatch, **changes) == name_of(monkeypatch)


def test_what_is_part_of_the_program_counts(monkeypatch):
    changes = [
        {},
        {"factor": 0.25},
        {"mass": 0.8},
        {"swapped": True},
        {"initial": True},
        {"points": ((1.0, 2.0), (0.5, -1.0))},
        {"num_steps": 9},
        {"mode": far.ReverseHG(jit_compile=False, truncation=2)},
        {"mode": far.ForwardHG(jit_compile=False)},
        {"mode": far.ReverseHG(jit_compile=True)},
    ]
    assert len({name_of(monkeypatch, **one) for one in changes}) == len(changes)


class Rule(far.Dynamics):
    def update(self, variable, gradient, slots, step, learning_rate):
        return variable - learning_rate * gradient, ()


Gradient = Rule


class Rule(far.Dynamics):
    def update(self, variable, gradient, slots, step, learning_rate):
        return variable - learning_rate * variable, ()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rules_of_one_name(jit_compile):
    """dE/dη of E = w_2², from w = 1: (1 − 2η)² 1, or (1 − η)² 1, for one of each."""
    found = []
    for rule in (Gradient, Rule):
        w = keras.Variable(1.0, dtype="float64", name="w")
        rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
        problem = far.BilevelProblem(
            *(lambda w=w: w * w, lambda w=w: w * w, [w], rule(learning_rate=rate)),
            [rate],
        )
        result = far.ReverseHG(jit_compile).compute(problem, 2)
        found.append(float(result.hypergradients[0]))
    np.testing.assert_allclose(found, [4 * 0.8**3 * -2, 4 * 0.9**3 * -1], rtol=1e-12)


def test_names_of_a_users_own():
    """Also those that ours could be taken for."""
    w = keras.Variable(1.0, dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")

    def inner():
        value = tf.identity(tf.convert_to_tensor(w), name="argument_0")
        with tf.control_dependencies([tf.identity(value, name="node_1")]):
            return tf.square(value, name="result_0")

    problem = far.BilevelProblem(
        inner, lambda: w * w, [w], far.GradientDescent(rate), [rate]
    )
    (found,) = MODE.compute(problem, 2).hypergradients
    np.testing.assert_allclose(found, 4 * 0.8**3 * -2, rtol=1e-12)


def test_a_function_lives_as_long_as_one_of_its_problems(monkeypatch):
    seen = traces_seen(monkeypatch)
    first, second = make(), make()
    np.testing.assert_array_equal(first[0], second[0])
    name = seen[0]._function.name
    assert seen[1]._function.name == name
    del seen[0]
    gc.collect()
    assert context.context().has_function(name)
    del seen[0]
    gc.collect()
    assert not context.context().has_function(name)


def test_threads_that_ask_at_once_trace_once(monkeypatch):
    seen = traces_seen(monkeypatch)
    w = keras.Variable(1.0, dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
    problem = far.BilevelProblem(
        lambda: w * w, lambda: w * w, [w], far.GradientDescent(rate), [rate]
    )
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: MODE.compute(problem, 2), range(4)))
    for result in found:
        np.testing.assert_allclose(result.hypergradients[0], 4 * 0.8**3 * -2)
    assert len(seen) == 1
