"""Fused batch normalization, differentiable in all that it takes and gives.

TensorFlow leaves out, in silence, the derivatives in the mean and variance that it is
given, and those of the mean and variance that it gives.
"""

import functools

import tensorflow as tf

from far_ho_tf.patches.registry import REPLACED, derivative_of, is_none


def _fused_batch_norm(
    kind: str,
    operation: tf.Operation,
    of_y: tf.Tensor,
    of_mean: tf.Tensor,
    of_variance: tf.Tensor,
    *others: tf.Tensor,
) -> tuple[tf.Tensor | None, ...]:
    x, channels = operation.inputs[0], _channels(operation)
    axes = [axis for axis in range(x.shape.rank) if axis != channels]
    shape = [-1 if axis == channels else 1 for axis in range(x.shape.rank)]

    def spread(by_channel: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.cast(by_channel, of_y.dtype), shape)

    def summed(tensor: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(tensor, of_mean.dtype), axes)

    if operation.get_attr("is_training"):
        found = REPLACED[kind](operation, of_y, of_mean, of_variance, *others)
        if is_none(of_mean) and is_none(of_variance):
            return found
        count = tf.cast(tf.size(x) // tf.shape(x)[channels], of_mean.dtype)
        centered = x - tf.reduce_mean(x, axes, keepdims=True)
        factor = operation.get_attr("exponential_avg_factor") if "V3" in kind else 1.0
        of_x = spread(of_mean / count) + centered * spread(
            2 * of_variance / (count - 1)  # It is the unbiased one.
        )
        rest = [(1 - factor) * one for one in (of_mean, of_variance)]
        return found[0] + factor * of_x, *found[1:3], *rest
    scale, mean, variance = operation.inputs[1], *operation.inputs[3:5]
    inverse = tf.math.rsqrt(variance + operation.get_attr("epsilon"))
    of_shifted = summed(of_y)
    of_scaled = summed(of_y * (x - spread(mean)))
    return (
        of_y * spread(scale * inverse),
        of_scaled * inverse,
        of_shifted,
        of_mean - of_shifted * scale * inverse,  # It gives what it is given, too.
        of_variance - of_scaled * scale * inverse**3 / 2,
    )


def _channels(operation: tf.Operation) -> int:
    """The axis of the channels."""
    layout = operation.get_attr("data_format")
    return 1 if b"NC" in layout else operation.inputs[0].shape.rank - 1


for _kind in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
    derivative_of(_kind)(functools.partial(_fused_batch_norm, _kind))
