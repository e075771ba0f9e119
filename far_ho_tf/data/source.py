"""What a run reads its batches from: the interface of all kinds of data."""

import abc
import functools
import zlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf._types import ConcreteFunction, Structure
from far_ho_tf.graphs.functions import ConcreteFunctions

_SCALAR = tf.TensorSpec([], tf.int32)
_SOME = 8  # In the place of a length that is not known.


class Source(abc.ABC):
    """What a compiled run reads its batches from.

    Attributes:
        is_empty: Whether the objective is called without a batch.
        has_episodes: Whether batches depend on the number of an episode.
    """

    is_empty = False
    has_episodes = False

    @abc.abstractmethod
    def prepare(self, first_step: int, num_steps: int) -> Structure:
        """Runs before the compiled graph.

        Args:
            first_step, num_steps: Python integers, the steps to come.

        Returns:
            A structure of tensors that is passed to the graph.

        Raises:
            ValueError: If the data end before the last of these steps.
        """

    def sample(self) -> Structure:
        """What `prepare` returns for one step, where only its shapes matter."""
        return self.prepare(0, 1)

    def example(self, prepared: Structure) -> Structure:
        """What `prepare` returned, in values that something can be computed from."""
        return prepared

    @abc.abstractmethod
    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        """Makes the batch of a step, and of an episode, inside the graph.

        Args:
            prepared: What `prepare` returned.
            step: int32 scalar.
            episode: int32 scalar; `None`, where only shapes matter, for the first.
        """

    def check_last(self, last: int) -> None:
        """Says so if the data end before a step, where that can be told."""
        del last

    def check_steps(self, first_step: int, num_steps: int) -> None:
        """Says in which of some steps making the batch fails, if it does."""
        del first_step, num_steps

    def reader(self) -> Callable[[tf.Tensor], Structure]:
        """A callable(step) that makes one batch after another inside a graph."""
        prepared = self.sample()
        return lambda step: self.batch(prepared, step)

    def first_batch(self) -> Structure:
        """The batch of step 0, and of episode 0."""
        prepared, zero = self.sample(), tf.constant(0)
        return self._traced(prepared)(prepared, zero, zero)

    def has_fixed_shapes(self, prepared: Structure) -> bool:
        """Whether the batches' shapes are known before the steps."""
        return all(
            tensor.shape.is_fully_defined()
            for tensor in tf.nest.flatten(self._traced(prepared).structured_outputs)
            if tensor is not None
        )

    def captured(self, prepared: Structure) -> list[tf.Tensor]:
        """The handles of variables and other tensors that batches are made from."""
        return self._traced(prepared).captured_inputs

    def graph(self, prepared: Structure) -> FuncGraph:
        """The `FuncGraph` in which a batch is made."""
        return self._traced(prepared).graph

    def position(self) -> list[Any] | None:
        """What `replay` needs to go on from here in another process.

        Returns:
            A structure of lists and numbers; `None` where a batch is a function of
            its step alone.
        """
        return None

    def replay(self, position: list[Any] | None) -> None:
        """Reads again what was read up to a `position`, so that all that follows is
        as it was.

        Args:
            position: What `position` returned.

        Raises:
            ValueError: If what is read is not what was read.
        """
        del position

    def description(self) -> dict[str, Any]:
        """What the data are, so that a run does not go on with others.

        Returns:
            A mapping of plain values; empty where only reading them would tell.
        """
        return {}

    def shuffles(self) -> list[tuple[tf.data.Dataset, bool]]:
        """The `tf.data.Dataset`s in it that draw an order.

        Returns:
            List of pairs of a dataset and whether it has a seed.
        """
        return []

    def _traced(self, prepared: Structure) -> ConcreteFunction:
        """`batch` as a concrete function, traced once for each structure."""
        return self._concrete(prepared, _SCALAR, _SCALAR)

    @functools.cached_property
    def _concrete(self) -> ConcreteFunctions:
        return ConcreteFunctions(tf.function(self.batch, autograph=False))


class Placeholder(Source):
    """Batches that come from elsewhere: known here by their shapes only.

    Args:
        batch: A batch or its specs: a structure of tensors and `None`.

    Attributes:
        specs: The batch's structure of `tf.TensorSpec`s and `None`.
    """

    def __init__(self, batch: Structure) -> None:
        self.specs = tf.nest.map_structure(_spec, batch)

    def prepare(self, first_step: int, num_steps: int) -> Structure:
        del first_step, num_steps
        return self.specs

    def example(self, prepared: Structure) -> Structure:
        del prepared
        return tf.nest.map_structure(_made_up, self.specs)

    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        del step, episode
        return prepared

    def widened(self, batch: Structure) -> "Placeholder":
        """A `Placeholder` for these batches and for one more.

        A batch of another structure or dtype takes the place of these.
        """
        other = Placeholder(batch)
        try:
            specs = tf.nest.map_structure(_common, self.specs, other.specs)
        except (TypeError, ValueError):
            return other
        return Placeholder(specs)

    def zeros(self) -> Structure:
        """A batch of zeros, where all shapes are known."""
        return tf.nest.map_structure(
            lambda spec: None if spec is None else tf.zeros(spec.shape, spec.dtype),
            self.specs,
        )


def _spec(tensor: tf.Tensor | tf.TensorSpec | None) -> tf.TensorSpec | None:
    if tensor is None or isinstance(tensor, tf.OptionalSpec):
        return None  # What Keras makes of an optional one.
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _made_up(spec: tf.TensorSpec | None) -> tf.Tensor | None:
    """A tensor that fits a spec: numbers between 0 and 1, or integers that are 0."""
    if spec is None:
        return None
    shape = [_SOME if size is None else size for size in spec.shape]
    if not spec.dtype.is_floating:
        return tf.zeros(shape, spec.dtype)
    return tf.random.stateless_uniform(shape, (1, 2), dtype=spec.dtype)


def _common(
    spec: tf.TensorSpec | None, other: tf.TensorSpec | None
) -> tf.TensorSpec | None:
    """The most specific spec of both."""
    if spec is None and other is None:
        return None
    common = spec.most_specific_common_supertype([other]) if spec and other else None
    if common is None:
        raise ValueError(f"{spec} and {other} have nothing in common.")
    return common


def checksum(tensors: Structure) -> int:
    """A number of the values of a structure of tensors."""
    total = 0
    for tensor in tf.nest.flatten(tensors):
        total = zlib.crc32(tf.io.serialize_tensor(tensor).numpy(), total)
    return total


def ended(name: str, last: int, received: str) -> ValueError:
    """The error that data end before a step."""
    return ValueError(f"`{name}` ends before step {last}. Received: {received}")
