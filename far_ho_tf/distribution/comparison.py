"""How far objectives on a batch are from the mean of those on its shards."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import essence
from far_ho_tf.data.source import Source
from far_ho_tf.distribution.interfaces import Inputs, Problem
from far_ho_tf.distribution.replicas import OnShards
from far_ho_tf.distribution.shards import Shards, leading
from far_ho_tf.variables.derivatives import vjp, zeros_for_none

# What an objective gives: its value, and the state that it assigns.
_ValueAndState: TypeAlias = tuple[tf.Tensor, list[tf.Tensor]]
# Examples of a replica that are looked at.
_EXAMPLES = 16
# Of what TensorFlow says where shapes do not go together.
_SHAPES_DIFFER = ("imensions must", "imension must", "ncompatible shapes")


class Distances(NamedTuple):
    """How far what is computed on a batch is from a mean of that on its shards.

    Vectors with an element for each tensor: the value, the gradients by variables and
    hyperparameters, and the state that is assigned.

    Attributes:
        mean, total: From the shards' weighted mean, and from their sum.
        size: Of what was added up.
        noise: How much it moves with the rounding of variables and hyperparameters.
    """

    mean: np.ndarray
    total: np.ndarray
    size: np.ndarray
    noise: np.ndarray


def compare_shards(
    problem: Problem, count: int, inputs: Inputs, slope: tf.Tensor, eps: tf.Tensor
) -> tuple[Distances, Distances]:
    """Measures how far both objectives are from means over shards.

    Args:
        problem: A `PureProblem`.
        count: Integer, the number of shards.
        inputs: `Inputs`.
        slope: Scalar tensor, by how much floating data fall off to the last example.
        eps: Scalar tensor, the rounding that `Distances.noise` is measured with.

    Returns:
        `Distances` of the inner and of the outer objective.
    """
    shaken = _shaken(inputs, eps)

    def inner(inputs: Inputs, batch: Structure) -> _ValueAndState:
        found = problem.oracle(inputs.start, inputs.hyperparameters, batch)
        return found.value, found.extra

    def outer(inputs: Inputs, batch: Structure) -> _ValueAndState:
        values = inputs.start, inputs.hyperparameters
        return problem.outer_value(*values, batch), []

    def compare(
        role: str,
        objective: Callable[[Inputs, Structure], _ValueAndState],
        source: Source,
        prepared: Structure,
        step: tf.Tensor,
    ) -> Distances:
        batch = _sloped(_some(source.batch(prepared, step), count), slope)

        def measured(
            function: Callable[[Structure], _ValueAndState],
            inputs: Inputs,
            argument: Structure,
        ) -> list[tf.Tensor]:
            return _measured(problem, function, inputs, argument)

        def on_batch(inputs: Inputs) -> list[tf.Tensor]:
            return measured(lambda b: objective(inputs, b), inputs, batch)

        whole, moved = on_batch(inputs), on_batch(shaken)
        shards = Shards(batch, count)
        if shards.size is None:
            zeros = tf.zeros([len(whole)], tf.float64)
            return Distances(*[zeros] * 4)  # pyright: ignore[reportArgumentType]
        program = OnShards(lambda b: objective(inputs, b), batch, shards)
        parts = [shards.part(index) for index in range(count)]
        with _rows_explained(role, count):
            rows = [measured(program, inputs, part) for part in parts]
        return _distances(whole, moved, rows, [part.weight for part in parts])

    return (
        compare(
            "inner_objective",
            *(inner, problem.inner_data, inputs.inner, inputs.first_step),
        ),
        compare(
            "outer_objective",
            *(outer, problem.outer_data, inputs.outer, inputs.outer_step),
        ),
    )


def _measured(
    problem: Problem,
    function: Callable[[Structure], _ValueAndState],
    inputs: Inputs,
    batch: Structure,
) -> list[tf.Tensor]:
    """List of tensors: the value, the gradients, and the assigned state."""
    variables, _, hyperparameters = problem.sources(
        inputs.start, inputs.hyperparameters
    )
    sources = variables + hyperparameters
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        value, extra = function(batch)
    gradients = vjp(tape, value, sources, tf.ones_like(value))
    return [value, *zeros_for_none(gradients, sources), *extra]


def _distances(
    whole: list[tf.Tensor],
    moved: list[tf.Tensor],
    rows: list[list[tf.Tensor]],
    weights: list[tf.Tensor],
) -> Distances:
    """`Distances`, of tensors on the batch and of those on its shards.

    Args:
        whole, moved: Lists of tensors, on the batch: the second of shaken inputs.
        rows: Lists of tensors, of each shard.
        weights: List of scalars, the shards' parts of the examples.
    """
    # A shard without examples has one that does not count.
    stacked = tf.stack(weights)

    def vector(tensor: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.cast(tensor, tf.float64), [-1])

    columns = []
    for tensors in zip(whole, moved, *rows, strict=True):
        one, other, *parts = map(vector, tensors)
        parts = tf.where(stacked[:, None] > 0, tf.stack(parts), tf.zeros_like(parts))
        mean = tf.linalg.matvec(parts, stacked, transpose_a=True)
        sizes = tf.reduce_sum(tf.norm(parts, axis=1))
        columns.append(
            [
                tf.norm(one - mean),
                tf.norm(one - tf.reduce_sum(parts, axis=0)),
                tf.maximum(tf.norm(one), sizes),
                tf.norm(one - other),
            ]
        )
    return Distances(*map(tf.stack, zip(*columns, strict=True)))


@contextlib.contextmanager
def _rows_explained(role: str, count: int) -> Iterator[None]:
    """Within, what TensorFlow says of shapes gets a hint at their likely cause."""
    try:
        yield
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        if not any(words in str(error) for words in _SHAPES_DIFFER):
            raise
        raise ValueError(
            f"`{role}` cannot be evaluated on one of {count} shards of a batch, though "
            "on the whole batch. What holds a row for each example (weights, labels, "
            "noise) must be part of the data, or be read by tf.gather with indices "
            "that are; what does not (seeds) must have no dimensions, or not be part "
            f"of the data. Received: {essence(error)}"
        ) from error


def mapped(inputs: Inputs, move: Callable[[tf.Tensor], tf.Tensor]) -> Inputs:
    """`Inputs` with moved variables and hyperparameters."""
    return inputs._replace(
        start=inputs.start._replace(variables=list(map(move, inputs.start.variables))),
        hyperparameters=list(map(move, inputs.hyperparameters)),
    )


def _shaken(inputs: Inputs, eps: tf.Tensor) -> Inputs:
    """`Inputs` moved by rounding: each element up or down."""

    def move(tensor: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(tensor)
        up = tf.random.stateless_uniform(shape, (1, 2), 0, 2, tf.int32)
        signs = tf.cast(2 * up - 1, tensor.dtype)
        return tensor + tf.cast(eps, tensor.dtype) * signs * tf.maximum(
            tf.abs(tensor), tf.ones_like(tensor)
        )

    return mapped(inputs, move)


def _some(batch: Structure, count: int) -> Structure:
    """Examples spread over the batch, so many that their shards differ in size."""
    size, most = Shards(batch, count).size, _EXAMPLES * count + 1
    if not isinstance(size, int) or size <= most:
        return batch
    rows = np.linspace(0, size - 1, most).astype(np.int32)
    return tf.nest.map_structure(
        lambda tensor: tf.gather(tensor, rows) if tensor.shape.rank else tensor, batch
    )


def _sloped(batch: Structure, slope: tf.Tensor) -> Structure:
    """A batch whose floating tensors fall off by `slope` to the last example.

    So no two shards are alike, and weights that are all one are so no more.
    """
    size = leading(tf.nest.flatten(batch))
    if size is None:
        return batch
    ramp = 1 - slope * tf.linspace(tf.zeros_like(slope), tf.ones_like(slope), size)

    def scaled(tensor: tf.Tensor) -> tf.Tensor:
        if not (tensor.shape.rank and tensor.dtype.is_floating):
            return tensor
        shape = [-1] + [1] * (tensor.shape.rank - 1)
        return tensor * tf.cast(tf.reshape(ramp, shape), tensor.dtype)

    return tf.nest.map_structure(scaled, batch)
