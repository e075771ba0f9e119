"""Mends of TensorFlow, applied when far_ho_tf is imported.

TensorFlow computes the variance in `tf.nn.moments` around a mean under
`tf.stop_gradient`. That is harmless to first derivatives, but drops a term of
the second ones, and so makes every hypergradient through BatchNormalization
(`training=True`), LayerNormalization and GroupNormalization wrong: by 1 % at
a batch of 64, by 15 % at a batch of 4.

The mend is global on purpose. Keras looks `tf.nn.moments` up at each call, so
its layers are right afterwards, within far_ho_tf and in a user's own check by
nested tapes alike. Values are bit-identical and first derivatives equal to
rounding.

It also registers `tf.one_hot`, `tf.range` and `tf.sparse.concat` as not differentiable,
though they are linear in what they are given (`on_value` and `off_value` in label
smoothing), so that derivatives are left out in silence. They get those that they have;
values are bit-identical.
"""

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import ops
from tensorflow.python.ops import gen_array_ops  # What tf.one_hot calls.

stopped_moments = tf.nn.moments


def moments(x, axes, shift=None, keepdims=False, name=None):
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


_one_hot = gen_array_ops.one_hot


def one_hot(indices, depth, on_value, off_value, axis=-1, name=None):
    """`tf.one_hot` as a choice where something may depend on the two values.

    A tape keeps nothing of the operation itself that a derivative could be made of.
    """
    on, off = (tf.convert_to_tensor(value) for value in (on_value, off_value))
    if not (on.dtype.is_floating or on.dtype.is_complex) or _are_fixed(on, off):
        return _one_hot(indices, depth, on, off, axis, name)
    with tf.name_scope(name or "one_hot"):
        return tf.where(_one_hot(indices, depth, True, False, axis), on, off)


def _are_fixed(*tensors):
    if tf.executing_eagerly():
        return not record.should_record_backprop(list(tensors))
    return all(tf.get_static_value(tensor) is not None for tensor in tensors)


def _range(operation, cotangent):
    """start + i · delta; the limit only tells how many there are."""
    del operation
    numbers = tf.cast(tf.range(tf.size(cotangent)), cotangent.dtype)
    return tf.reduce_sum(cotangent), None, tf.reduce_sum(numbers * cotangent)


def _sparse_concat(operation, *cotangents):
    """The values of all, sorted by their indices."""
    count = operation.get_attr("N")
    indices, values, shapes = (
        list(operation.inputs[part * count : (part + 1) * count]) for part in range(3)
    )
    sizes = [tf.size(one) for one in values]
    numbers = tf.split(tf.range(tf.add_n(sizes)), sizes)
    dimension = operation.get_attr("concat_dim")
    _, order, _ = tf.raw_ops.SparseConcat(
        indices=indices, values=numbers, shapes=shapes, concat_dim=dimension
    )
    back = tf.gather(cotangents[1], tf.argsort(order))
    return [None] * count + tf.split(back, sizes, num=count) + [None] * count


# By the types of operations.
DERIVATIVES = {"Range": _range, "SparseConcat": _sparse_concat}


def apply():
    """Puts what is mended in its place."""
    tf.nn.moments = moments
    gen_array_ops.one_hot = one_hot
    registered = ops.gradient_registry._registry  # Which takes none a second time.
    for name, derivative in DERIVATIVES.items():
        if registered[name]["type"] is None:
            registered[name] = registered[name] | {"type": derivative}
