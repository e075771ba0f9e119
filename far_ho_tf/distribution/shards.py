"""The parts of a batch that go to replicas."""

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import require

# A number of examples: an integer, or a tensor; `None` where a batch has none.
Size: TypeAlias = Any


class Shard(NamedTuple):
    """One part of a batch.

    Attributes:
        tensors: List of the batch's tensors, cut along their first axis.
        first: int32 scalar tensor, the place of its first example in the batch.
        weight: Scalar float64 tensor, its part of the examples.
    """

    tensors: list[tf.Tensor]
    first: tf.Tensor
    weight: tf.Tensor


class Shards:
    """A batch cut into parts whose sizes differ by one example at most.

    Args:
        batch: Structure of tensors with one first dimension; tensors without
            dimensions belong to each part.
        count: Python integer, the number of parts.

    Attributes:
        size: The number of examples: a Python integer, a tensor where it is not
            known before the run, `None` where the batch has none.

    Raises:
        ValueError: If the first dimensions differ.
    """

    def __init__(self, batch: Structure, count: int) -> None:
        self._tensors = tf.nest.flatten(batch)
        self._count = count
        known = {t.shape[0] for t in self._tensors if t.shape.rank} - {None}
        require(
            len(known) <= 1,
            "All tensors of a batch must have one first dimension, the number of "
            "examples, to be split over replicas.",
            shapes=[tuple(tensor.shape) for tensor in self._tensors],
        )
        self.size = leading(self._tensors)

    def part(self, index: int) -> Shard:
        """The `Shard` of a part, by its number.

        Where there are fewer examples than parts, some get one without weight.
        """
        first = self.size * index // self._count
        last = self.size * (index + 1) // self._count
        if isinstance(self.size, int):
            number = max(last - first, 1)
        else:
            number = tf.maximum(last - first, 1)
        weight = tf.cast(last - first, tf.float64) / tf.cast(self.size, tf.float64)
        tensors = [
            tensor[first : first + number] if tensor.shape.rank else tensor
            for tensor in self._tensors
        ]
        return Shard(tensors, tf.convert_to_tensor(first, tf.int32), weight)


def leading(tensors: list[tf.Tensor]) -> Size:
    """The number of examples of a batch's tensors; see `Shards.size`."""
    ranked = [tensor for tensor in tensors if tensor.shape.rank != 0]
    for tensor in ranked:
        if tensor.shape.rank and tensor.shape[0] is not None:
            return tensor.shape[0]
    return tf.shape(ranked[0])[0] if ranked else None
