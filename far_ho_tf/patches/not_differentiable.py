"""Operations that TensorFlow registers as not differentiable, though they are.

`tf.one_hot`, `tf.range` and `tf.sparse.concat` are linear in what they are given
(`on_value` and `off_value` in label smoothing), so that derivatives are left out in
silence. They get those that they have.
"""

import tensorflow as tf
from tensorflow.python.ops import gen_array_ops  # What tf.one_hot calls.

from far_ho_tf.patches.registry import derivative_of, is_watched

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


def apply():
    """Puts it in the place of TensorFlow's."""
    gen_array_ops.one_hot = one_hot


def _are_fixed(*tensors):
    if tf.executing_eagerly():
        return not is_watched(*tensors)
    return all(tf.get_static_value(tensor) is not None for tensor in tensors)


@derivative_of("Range")
def _range(operation, cotangent):
    """start + i · delta; the limit only tells how many there are."""
    del operation
    numbers = tf.cast(tf.range(tf.size(cotangent)), cotangent.dtype)
    return tf.reduce_sum(cotangent), None, tf.reduce_sum(numbers * cotangent)


@derivative_of("SparseConcat")
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
