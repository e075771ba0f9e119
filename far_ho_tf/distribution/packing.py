"""Many tensors as one vector, to travel between devices."""

from collections.abc import Iterable
from typing import TypeAlias

import tensorflow as tf

from far_ho_tf._types import Structure

# What is added up over replicas, and what is the same on all.
TwoLists: TypeAlias = tuple[list[tf.Tensor], list[tf.Tensor]]


def pack(structure: Structure, weight: float | tf.Tensor) -> TwoLists:
    """A vector for each floating dtype, times a weight, and the other tensors."""
    flat = [tensor for tensor in tf.nest.flatten(structure) if tensor is not None]
    vectors = []
    for dtype in _floating_dtypes(flat):
        parts = [tf.reshape(tensor, [-1]) for tensor in flat if tensor.dtype == dtype]
        # What has no weight must not count even if it is not a number.
        vectors.append(
            tf.math.multiply_no_nan(tf.concat(parts, 0), tf.cast(weight, dtype))
        )
    return vectors, [tensor for tensor in flat if not tensor.dtype.is_floating]


def unpack(
    like: Structure, vectors: list[tf.Tensor], others: Iterable[tf.Tensor]
) -> Structure:
    """Undoes `pack`, for a structure like this one."""
    flat = [tensor for tensor in tf.nest.flatten(like) if tensor is not None]
    parts = {}
    for dtype, vector in zip(_floating_dtypes(flat), vectors, strict=True):
        shapes = [tensor.shape for tensor in flat if tensor.dtype == dtype]
        sizes = [shape.num_elements() for shape in shapes]
        parts[dtype] = [
            tf.reshape(part, shape)
            for part, shape in zip(tf.split(vector, sizes), shapes, strict=True)
        ]
    queues = {dtype: iter(tensors) for dtype, tensors in parts.items()}
    others = iter(others)
    return tf.nest.map_structure(
        lambda tensor: (
            None if tensor is None else next(queues.get(tensor.dtype, others))
        ),
        like,
    )


def _floating_dtypes(tensors: list[tf.Tensor]) -> list[tf.DType]:
    found = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating}
    return sorted(found, key=lambda dtype: dtype.name)
