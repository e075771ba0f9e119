"""Replayable data: any step's batch can be computed again at any time.

The backward pass visits the steps in reverse order and must see, at each, the
batch that the forward pass saw.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import (
    argument_names,
    num_arguments,
    require,
)
from far_ho_tf.data.batches import (
    Batches,
    gather,
    refuse_composites,
    refuse_empty,
    refuse_lists,
    refuse_variables,
    warn_of_broadcasting,
)
from far_ho_tf.data.dataset_source import DatasetSource
from far_ho_tf.data.source import Source, checksum, ended
from far_ho_tf.graphs import buffers
from far_ho_tf.graphs.failures import NOT_EXPLAINED, told
from far_ho_tf.variables.numbers import scalar

# Bytes that the indices of a run may take.
_LARGEST_TABLE = 2**28
# Indices that are drawn at once where a run takes fewer: the next may follow on it.
_READ_AHEAD = 2**14


# What a problem takes as data; see `as_source`.
Data: TypeAlias = (
    Source | Batches | tf.data.Dataset | Callable[..., Structure] | Structure | None
)


def as_source(data: Data, name: str, cycle: bool = False) -> Source:
    """Wraps any kind of data that `BilevelProblem` takes as a `Source`.

    Args:
        data: `None`, a structure of tensors, `Batches`, a `tf.data.Dataset`
            or a callable of the step.
        name: For messages: "inner_data" or "outer_data".
        cycle: Whether a finite `tf.data.Dataset` starts over at its end.

    Returns:
        A `Source`.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Batches):
        return _BatchesSource(data)
    if isinstance(data, tf.data.Dataset):
        return DatasetSource(data.repeat() if cycle else data, name)
    if callable(data):
        return _CallableSource(data, name)
    return _ConstantSource(data, name)


class _ConstantSource(Source):
    """One full batch, or none at all (`data=None`)."""

    def __init__(self, data: Structure, name: str) -> None:
        self.is_empty = data is None
        refuse_lists(f"`{name}`", data)
        refuse_variables(f"`{name}`", data)
        refuse_composites(f"`{name}`", data)
        try:
            self._tensors = (
                ()
                if data is None
                else tf.nest.map_structure(tf.convert_to_tensor, data)
            )
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`{name}` must be None, tensors, `Batches`, a "
                "`tf.data.Dataset` or a callable of the step. Received: "
                f"{type(data).__name__}"
            ) from error
        if not self.is_empty:
            refuse_empty(f"`{name}`", self._tensors)
            warn_of_broadcasting(f"`{name}`", self._tensors)

    def prepare(self, first_step: int, num_steps: int) -> Structure:
        del first_step, num_steps
        return self._tensors

    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        del step, episode
        return prepared

    def has_fixed_shapes(self, prepared: Structure) -> bool:
        del prepared
        return True

    def description(self) -> dict[str, Any]:
        return {"checksum": checksum(self._tensors)}


class _BatchesSource(Source):
    """`Batches`, whose indices are drawn before the run.

    In a compiled loop the permutation is more to trace and compile than most steps
    are; it stays there only where a table of the run's indices would be too large.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._table = None  # Of the indices of steps from `_begin` on.
        self._begin = 0

    def prepare(self, first_step: int, num_steps: int) -> Structure:
        size = self._batches.batch_size
        rows = max(buffers.capacity(num_steps), _READ_AHEAD // size)
        if rows * size * tf.int32.size > _LARGEST_TABLE:
            return self._batches.tensors, None, None
        end = self._begin + (0 if self._table is None else len(self._table))
        fits = self._begin <= first_step and first_step + num_steps <= end
        if self._table is None or not fits or len(self._table) != rows:
            self._begin = first_step
            steps = first_step + tf.range(rows, dtype=tf.int64)
            self._table = self._batches.indices(steps[:, tf.newaxis])
        return self._batches.tensors, self._table, scalar(self._begin)

    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        del episode
        tensors, table, begin = prepared
        if table is None:
            indices = self._batches.indices(step)
        else:
            indices = tf.gather(table, step - begin)
        return gather(tensors, indices)

    def has_fixed_shapes(self, prepared: Structure) -> bool:
        del prepared
        return True

    def reader(self) -> Callable[[tf.Tensor], Structure]:
        """Of any step, so without a table."""
        return self._batches

    def description(self) -> dict[str, Any]:
        names = ("batch_size", "seed", "shuffle")
        settings = {name: getattr(self._batches, name) for name in names}
        return settings | {"checksum": checksum(self._batches.tensors)}


class _CallableSource(Source):
    def __init__(self, function: Callable[..., Structure], name: str) -> None:
        self._function = function
        self._name = name
        self._checked = -1
        self.has_episodes = num_arguments(function) == 2
        names = argument_names(function)
        require(
            names[:1] != ["episode"] and names[1:2] != ["step"],
            f"`{name}` must be a callable of (step, episode), in this order.",
            arguments=names,
        )

    def prepare(self, first_step: int, num_steps: int) -> Structure:
        """Asks for the last batch: compiled code would not miss it.

        XLA clamps an index that is out of range instead of raising.
        """
        self.check_last(first_step + num_steps - 1)
        return ()

    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        del prepared
        episode = tf.constant(0) if episode is None else episode
        arguments = (step, episode) if self.has_episodes else (step,)
        try:
            batch = self._function(*arguments)
            refuse_composites("The batch", batch)
            return tf.nest.map_structure(tf.convert_to_tensor, batch)
        except NOT_EXPLAINED:
            raise
        except Exception as error:
            raise ValueError(
                f"`{self._name}` must be a callable that makes a batch of tensors, by "
                "TensorFlow's operations, from the step (and the number of an episode, "
                "where it takes two arguments), scalar int32 tensors (index "
                f"lists and arrays by tf.gather). Received: {self._function!r}, which "
                f"fails with {told(error)}"
            ) from error

    def check_last(self, last: int) -> None:
        if last <= self._checked:
            return
        try:
            batch = self._made(last)
        except tf.errors.OpError as error:
            self.check_steps(0, 1)  # It may be none that ends.
            raise ended(self._name, last, f"it fails with {told(error)}") from error
        for tensor in tf.nest.flatten(batch):
            shape = tf.convert_to_tensor(tensor).shape
            if shape.rank and shape[0] == 0:
                raise ended(
                    self._name, last, f"an empty batch, of shape {tuple(shape)}"
                )
        self._checked = last

    def check_steps(self, first_step: int, num_steps: int) -> None:
        for step in range(first_step, first_step + num_steps):
            try:
                self._made(step)
            except tf.errors.OpError as error:
                raise ValueError(
                    f"`{self._name}` fails in step {step}. Received: {self._function!r}"
                    f", which fails with {told(error)}"
                ) from error

    def _made(self, step: int) -> Structure:
        """The batch of a step: in a graph, as later; eagerly it may fail otherwise."""
        return self._traced(())((), tf.constant(step), tf.constant(0))
