"""Parameters and problems that many tests share."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import far_ho_tf as far
from far_ho_tf.hypergradients.compiler import Program
from far_ho_tf.patches import kernels, registry

# Of the repository.
ROOT = pathlib.Path(__file__).parents[1]


# For tests of what a hyperparameter does there.
begins_out_of_bounds = pytest.mark.filterwarnings("ignore:.*and begins outside")


def in_tiers(values, first):
    """Parameters of a test, of which only those in `first` are in the first tier.

    Args:
        values: Iterable of all parameters; a tuple holds several arguments.
        first: Iterable of some of them.
    """
    values, first = list(values), list(first)
    assert first and all(one in values for one in first), first
    return [value if value in first else thorough(value) for value in values]


def thorough(value):
    """A parameter, or a tuple of several, for the second tier only."""
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.thorough)


def pairwise(*axes):
    """Tuples of one value of each axis, a part of their product.

    Each pair of values of any two axes is in one of them. Of tuples that add as many
    pairs the one is taken whose pairs have been taken least.
    """
    axes = [list(axis) for axis in axes]
    rows = list(itertools.product(*(range(len(axis)) for axis in axes)))
    taken = dict.fromkeys(set().union(*map(_pairs, rows)), 0)
    chosen = []
    while not all(taken.values()):
        counts = {row: [taken[pair] for pair in _pairs(row)] for row in rows}
        best = max(rows, key=lambda row: (counts[row].count(0), -sum(counts[row])))
        chosen.append(best)
        for pair in _pairs(best):
            taken[pair] += 1
    return [
        tuple(axis[place] for axis, place in zip(axes, row, strict=True))
        for row in sorted(chosen)
    ]


def _pairs(row):
    """The pairs of (axis, place in it) that a tuple of places holds."""
    return set(itertools.combinations(enumerate(row), 2))


def relative_error(actual, expected):
    """Norm of the difference over the norm of `expected`; 0 where both are zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if not np.any(actual) and not np.any(expected):
        return 0.0
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def assert_close(actual, expected, tolerance):
    """Each tensor of a list equals its partner up to a relative error."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert np.shape(one) == np.shape(other)
        assert relative_error(one, other) <= tolerance, (
            np.asarray(one),
            np.asarray(other),
        )


def hyper(value, name):
    """A float64 hyperparameter."""
    return far.Hyperparameter(value, dtype="float64", name=name)


def counted(function):
    """A function that counts its calls, and the list that grows with each."""
    calls = []

    def counting(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counting, calls


@contextlib.contextmanager
def own_derivative(kind):
    """Within, TensorFlow's own derivative of a type of operation, or none."""
    entries = ops.gradient_registry._registry
    patched = entries.pop(kind)
    if kind in registry.REPLACED:
        entries[kind] = patched | {"type": registry.REPLACED[kind]}
    try:
        yield
    finally:
        entries[kind] = patched


def slope(mode, problem, num_steps, width, *moves):
    """Central difference of the outer value along pairs (variable, direction)."""
    starts = [variable.numpy() for variable, _ in moves]
    values = []
    for sign in (1, -1):
        for (variable, direction), start in zip(moves, starts, strict=True):
            variable.assign(start + sign * width * np.asarray(direction))
        values.append(float(mode.compute(problem, num_steps).outer_value))
    for (variable, _), start in zip(moves, starts, strict=True):
        variable.assign(start)
    return (values[0] - values[1]) / (2 * width)


def normalized_network():
    """4-5-1 in float64, with BatchNorm and Dropout."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(5, "tanh", dtype="float64"),
        keras.layers.BatchNormalization(dtype="float64"),
        keras.layers.Dropout(0.3, seed=4, dtype="float64"),
        keras.layers.Dense(1, dtype="float64"),
    ]
    return keras.Sequential([keras.Input((4,), dtype="float64"), *layers])


def normalized_problem(dynamics):
    """A loss's scale, through BatchNorm, Dropout and minibatches, in float64."""
    x = np.random.RandomState(0).randn(40, 4)
    model, scale = normalized_network(), hyper(1.0, "scale")

    def loss(batch, training):
        return tf.reduce_mean(tf.square(model(batch, training=training) - 1.0))

    return far.BilevelProblem(
        lambda batch: scale * loss(batch, True),
        lambda: loss(x, False),
        model,
        dynamics,
        [scale],
        inner_data=far.Batches(x, batch_size=16, seed=1),
    )


class Classification:
    """A two-layer network on twelve random examples, each with a weight.

    Hyperparameters that the objectives read: a weight per example, and an L2
    penalty (read by the inner objective only) with a direct term in the outer
    objective, so that every kind of derivative takes part.
    """

    num_examples = 12

    def __init__(self, dtype="float64", seed=0):
        random = np.random.RandomState(seed)
        self.dtype = dtype
        x = random.randn(2 * self.num_examples, 5)
        y = np.eye(3)[random.randint(0, 3, 2 * self.num_examples)]
        x, y = x.astype(dtype), y.astype(dtype)
        half = self.num_examples
        self.train = (x[:half], y[:half], np.arange(half))
        self.validation = (x[half:], y[half:])
        self.model = keras.Sequential(
            [
                keras.Input((5,), dtype=dtype),
                keras.layers.Dense(4, activation="tanh", dtype=dtype),
                keras.layers.Dense(3, dtype=dtype),
            ]
        )
        # Weights that do not depend on the dtype.
        self.model.set_weights(
            [0.5 * random.randn(*w.shape) for w in self.model.get_weights()]
        )
        self.weights = self.hyper(0.5 + random.rand(half), "weights")
        self.penalty = self.hyper(0.01, "penalty")

    def hyper(self, value, name, **options):
        return far.Hyperparameter(value, dtype=self.dtype, name=name, **options)

    def inner(self, batch):
        x, y, index = batch
        log_p = tf.nn.log_softmax(self.model(x, training=True))
        losses = -tf.reduce_sum(y * log_p, axis=-1)
        weights = tf.gather(tf.convert_to_tensor(self.weights), index)
        squares = sum(tf.reduce_sum(w * w) for w in self.model.trainable_variables)
        return tf.reduce_mean(weights * losses) + self.penalty * squares

    def outer(self, batch):
        x, y = batch
        log_p = tf.nn.log_softmax(self.model(x, training=False))
        loss = -tf.reduce_mean(tf.reduce_sum(y * log_p, axis=-1))
        return loss + 0.1 * tf.convert_to_tensor(self.penalty) ** 2

    def bilevel(self, dynamics, hyperparameters=(), **options):
        """The `BilevelProblem`; the two hyperparameters above come last."""
        options = {"inner_data": self.train, "outer_data": self.validation} | options
        return far.BilevelProblem(
            self.inner,
            self.outer,
            self.model,
            dynamics,
            [*hyperparameters, self.weights, self.penalty],
            **options,
        )

    def naive(self, hyperparameters=(), batch=None):
        """The problem as `reference.unrolled` takes it."""
        return {
            "inner": self.inner,
            "outer": self.outer,
            "variables": self.model.trainable_variables,
            "hyperparameters": [*hyperparameters, self.weights, self.penalty],
            "batch": batch or (lambda t: self.train),
            "outer_batch": self.validation,
        }


def keep_small_products(monkeypatch):
    """Lets reverse mode keep the results of products however small they are."""
    policy = far.ReverseHG.policy.func

    def lowered(mode):
        return dataclasses.replace(policy(mode), worth_keeping=1)

    monkeypatch.setattr(far.ReverseHG, "policy", property(lowered))
    monkeypatch.setattr(kernels, "_SMALL_PRODUCT", 0)


def traces_seen(monkeypatch):
    """A list of `Executable`s that fills as programs are traced."""
    seen, trace = [], Program._trace

    def seeing(program, *arguments, **options):
        made = trace(program, *arguments, **options)
        seen.append(made)
        return made

    monkeypatch.setattr(Program, "_trace", seeing)
    return seen


def run_example(name, *flags, cache=""):
    """Runs an example as a user does; returns the `CompletedProcess`.

    Args:
        name: Of its folder in examples/.
        cache: A folder for what XLA compiles. With one, an example imports TensorFlow
            before it reads its flags, and most tests are of these.
    """
    return subprocess.run(
        [sys.executable, ROOT / "examples" / name / "run.py", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FAR_HO_TF_COMPILE_CACHE": str(cache)},
    )
