"""Writing over: who was written over gets no derivative.

Where an index occurs twice, `tf.dynamic_stitch` and `tf.tensor_scatter_nd_update` keep
one of the values, but TensorFlow gives each the derivative of what is kept.
"""

from collections.abc import Sequence

import tensorflow as tf

from far_ho_tf.patches.registry import derivative_of


@derivative_of("DynamicStitch", "ParallelDynamicStitch")
def _dynamic_stitch(
    operation: tf.Operation, cotangent: tf.Tensor
) -> list[tf.Tensor | None]:
    cotangent = tf.convert_to_tensor(cotangent)  # Of a gather's slices.
    count = operation.get_attr("N")
    indices = [tf.cast(one, tf.int32) for one in operation.inputs[:count]]
    numbers = _numbered(indices)
    kept = tf.dynamic_stitch(indices, numbers)
    return [None] * count + [
        _where_kept(tf.gather(cotangent, index), tf.gather(kept, index) == number)
        for index, number in zip(indices, numbers, strict=True)
    ]


@derivative_of("TensorScatterUpdate")
def _scatter_update(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None, tf.Tensor]:
    _, indices, updates = operation.inputs  # A tape does not keep the first.
    of_tensor = tf.tensor_scatter_nd_update(cotangent, indices, tf.zeros_like(updates))
    (number,) = _numbered([indices[..., 0]])
    depth = tf.shape(indices)[-1]
    kept = tf.tensor_scatter_nd_update(
        tf.zeros(tf.shape(cotangent)[:depth], tf.int32), indices, number
    )
    is_kept = tf.gather_nd(kept, indices) == number
    return of_tensor, None, _where_kept(tf.gather_nd(cotangent, indices), is_kept)


def _numbered(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Numbers for all elements of some tensors, each in the shape of its tensor."""
    numbered, first = [], 0
    for tensor in tensors:
        size = tf.size(tensor)
        numbered.append(tf.reshape(first + tf.range(size), tf.shape(tensor)))
        first += size
    return numbered


def _where_kept(cotangent: tf.Tensor, is_kept: tf.Tensor) -> tf.Tensor:
    """Zero elsewhere, for slices of any rank."""
    missing = tf.rank(cotangent) - tf.rank(is_kept)
    shape = tf.concat([tf.shape(is_kept), tf.ones([missing], tf.int32)], 0)
    return tf.where(tf.reshape(is_kept, shape), cotangent, tf.zeros_like(cotangent))
