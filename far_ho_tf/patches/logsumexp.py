"""Logarithms of sums of exponentials whose derivatives are finite wherever they are.

`tf.reduce_logsumexp` of nothing but −∞ (no example of a class, in
`keras.losses.Circle`) divides by a sum of zero: its value is −∞ and its derivative 0,
but TensorFlow's NaN, which `tf.where` keeps out of first derivatives only.

The derivative of `tf.math.cumulative_logsumexp` goes through logarithms of the
cotangents, positive and negative ones apart: that cannot be differentiated where one is
zero, nor where an exclusive sum has no terms. It is linear in the cotangents, and so
written here. Values are bit-identical, first derivatives equal to rounding.
"""

from collections.abc import Sequence

import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import REPLACED, Gradients, derivative_of, held
from far_ho_tf.patches.replacing import replace

# Along an axis, up to which a matrix is made of all pairs.
_LONGEST = 4_096


def reduce_logsumexp(
    input_tensor: TensorLike,
    axis: int | Sequence[int] | tf.Tensor | None = None,
    keepdims: bool = False,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.reduce_logsumexp`, whose arguments and values these are."""
    with tf.name_scope(name or "ReduceLogSumExp"):
        x = tf.convert_to_tensor(input_tensor)
        largest = tf.reduce_max(x, axis, keepdims=True)
        shift = tf.where(tf.math.is_finite(largest), largest, tf.zeros_like(largest))
        shift = held(shift)
        total = tf.reduce_sum(tf.exp(x - shift), axis, keepdims=keepdims)
        if not keepdims:
            shift = tf.reshape(shift, tf.shape(total))
        is_none = tf.equal(total, 0)
        log = tf.math.log(tf.where(is_none, tf.ones_like(total), total))
        nothing = tf.constant(float("-inf"), x.dtype)
        return tf.where(is_none, nothing, log) + shift


@derivative_of("CumulativeLogsumexp")
def _cumulative(operation: tf.Operation, cotangent: tf.Tensor) -> Gradients:
    """dxᵢ = Σⱼ exp(xᵢ − yⱼ) ḡⱼ, over the sums yⱼ that xᵢ is in."""
    x, axis = operation.inputs
    axis = tf.get_static_value(axis)
    length = None if axis is None or x.shape.rank is None else x.shape[int(axis)]
    if length is None or length > _LONGEST:
        return REPLACED["CumulativeLogsumexp"](operation, cotangent)
    order = list(range(x.shape.rank))
    order.append(order.pop(int(axis)))  # That axis is the last one.
    x, y, cotangent = (
        tf.transpose(one, order) for one in (x, operation.outputs[0], cotangent)
    )
    places = tf.range(length)
    before = places[:, tf.newaxis] - places
    if operation.get_attr("reverse"):
        before = -before
    is_term = before < 0 if operation.get_attr("exclusive") else before <= 0
    has_terms = tf.math.is_finite(y)
    is_term &= has_terms[..., tf.newaxis, :]
    exponents = x[..., :, tf.newaxis] - y[..., tf.newaxis, :]
    zeros = tf.zeros_like(exponents)
    shares = tf.where(is_term, tf.exp(tf.where(is_term, exponents, zeros)), zeros)
    cotangent = tf.where(has_terms, cotangent, tf.zeros_like(cotangent))
    found = tf.linalg.matvec(shares, cotangent)
    return tf.transpose(found, tf.argsort(order)), None


def apply() -> None:
    """Puts it in the place of TensorFlow's."""
    for module in (tf, tf.math):
        replace(module, "reduce_logsumexp", reduce_logsumexp)
