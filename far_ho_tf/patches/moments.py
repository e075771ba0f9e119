"""Mean and variance with right second derivatives.

TensorFlow computes the variance in `tf.nn.moments` around a mean under
`tf.stop_gradient`. That is harmless to first derivatives, but drops a term of
the second ones, and so makes every hypergradient through BatchNormalization
(`training=True`), LayerNormalization and GroupNormalization wrong: by 1 % at
a batch of 64, by 15 % at a batch of 4.

Keras looks `tf.nn.moments` up at each call, so its layers are right afterwards. Values
are bit-identical and first derivatives equal to rounding.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.replacing import replace

stopped_moments = tf.nn.moments


def moments(
    x: TensorLike,
    axes: int | Sequence[int] | tf.Tensor,
    shift: Any = None,
    keepdims: bool = False,
    name: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance; `tf.nn.moments` with right second derivatives.

    Args:
        x: Floating tensor.
        axes: List of integers, the axes to reduce.
        shift: Not used, as in `tf.nn.moments`.
        keepdims: Whether to keep the reduced axes with length one.
        name: Name scope of the operations.

    Returns:
        Two tensors, mean and variance.
    """
    del shift
    with tf.name_scope(name or "moments"):
        x = tf.convert_to_tensor(x)
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims)
        variance = tf.math.reduce_variance(wide, axes, keepdims)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def moments_v1(
    x: TensorLike,
    axes: int | Sequence[int] | tf.Tensor,
    shift: Any = None,
    name: str | None = None,
    keep_dims: bool | None = None,
    keepdims: bool | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.compat.v1.nn.moments`, whose arguments these are, in the same way."""
    keeps = keep_dims if keepdims is None else keepdims
    return moments(x, axes, shift, bool(keeps), name)


def apply() -> None:
    """Puts them in their places; legacy Keras calls that of tf.compat.v2."""
    for module in (tf.nn, tf.compat.v2.nn):
        replace(module, "moments", moments)
    replace(tf.compat.v1.nn, "moments", moments_v1)
