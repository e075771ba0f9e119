"""What a compiled hyper-iteration takes, and what it returns."""

import functools
from typing import Any, NamedTuple

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.variables.state import State


class Buffers(NamedTuple):
    """What a program holds.

    Attributes:
        steps: Integer, the most steps of a run.
    """

    steps: int


class Settings(NamedTuple):
    """What is fixed while a program is traced.

    Attributes:
        buffers: What the mode's `buffers` said.
        restart: Whether to start from Φ_0 or from `Inputs.start`.
        keep_tangents: Whether the final tangents are asked for.
        strategy: A `tf.distribute.Strategy` or `None`.
        compiled: Whether XLA is to compile what the mode compiles by itself.
    """

    buffers: Any
    restart: bool
    keep_tangents: bool
    strategy: tf.distribute.Strategy | None = None
    compiled: bool = False


class Inputs(NamedTuple):
    """What a compiled program takes.

    Attributes:
        hyperparameters: List of tensors λ.
        start: The `State` to start from.
        tangents: In forward mode the tangents to start from; `None` for zero.
        inner, outer: What the data sources prepared.
        first_step, outer_step: int32 scalars.
        num_steps: int32 scalar T, at most what the buffers hold.
        itinerary: What the mode's `itinerary` returned.
        episode: int32: the vector of the numbers of episodes, of which a mode's
            `differentiate` gets one; `None` where there are none.
    """

    hyperparameters: list[tf.Tensor]
    start: State
    tangents: State | None
    inner: Structure
    outer: Structure
    first_step: tf.Tensor
    outer_step: tf.Tensor
    num_steps: tf.Tensor
    itinerary: Structure = ()
    episode: tf.Tensor | None = None


class Outputs(NamedTuple):
    """What a compiled program returns.

    Attributes:
        outer_value, hypergradients, inner_values, choices, state, tangents: As
            in `HyperGradientResult`; those of each step have as many rows as the
            buffers.
        finite: Boolean: are all of them? A scalar; of several episodes a vector.
        checks: Mapping from names to scalars: what the mode verifies. Empty where
            there are episodes.
        outer_values: Of several episodes, as in `HyperGradientResult`.
    """

    outer_value: tf.Tensor
    hypergradients: list[tf.Tensor]
    inner_values: tf.Tensor
    choices: dict[str, tf.Tensor]
    state: State
    tangents: State | None
    finite: tf.Tensor
    checks: dict[str, tf.Tensor] = {}
    outer_values: tf.Tensor | None = None


def cut_to(outputs: Outputs, num_steps: int) -> Outputs:
    """`Outputs` with as many rows of the steps as there were."""
    axis = 1 if outputs.outer_values is not None else 0

    def cut(rows: tf.Tensor) -> tf.Tensor:
        if rows.shape[axis] == num_steps:
            return rows
        begin, size = _extent(num_steps, axis, rows.shape.rank)
        return tf.raw_ops.Slice(input=rows, begin=begin, size=size)

    return outputs._replace(
        inner_values=cut(outputs.inner_values),
        choices={name: cut(rows) for name, rows in outputs.choices.items()},
    )


@functools.lru_cache(maxsize=1024)
def _extent(count: int, axis: int, rank: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a slice begins, and its size, as tensors."""
    size = [-1] * rank
    size[axis] = count
    with tf.init_scope():
        return tf.zeros(rank, tf.int32), tf.constant(size)


class Prepared(NamedTuple):
    """What runs of some number of steps need, beside data.

    Attributes:
        buffers: What the mode's `buffers` said.
        itinerary: What its `itinerary` said.
        facts: What its `describe` said.
        held: What its `held` said, bytes.
    """

    buffers: Any
    itinerary: Any
    facts: dict[str, Any]
    held: int
