"""Operations that TensorFlow does not differentiate, though they have derivatives.

`tf.one_hot`, `tf.range`, `tf.sparse.concat` and `tf.math.bincount` are linear in what
they are given (`on_value` and `off_value` in label smoothing), `tf.image.hsv_to_rgb` is
made of straight lines. Most are registered as not differentiable, so that derivatives
are left out in silence. They get those that they have.
"""

import tensorflow as tf
from tensorflow.python.ops import gen_array_ops, gen_image_ops  # What tf's call.

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import derivative_of, is_watched
from far_ho_tf.patches.replacing import replace

_one_hot = gen_array_ops.one_hot
_hsv_to_rgb = gen_image_ops.hsv_to_rgb


def one_hot(
    indices: TensorLike,
    depth: TensorLike,
    on_value: TensorLike,
    off_value: TensorLike,
    axis: int = -1,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.one_hot` as a choice where something may depend on the two values.

    A tape keeps nothing of the operation itself that a derivative could be made of.
    """
    on, off = (tf.convert_to_tensor(value) for value in (on_value, off_value))
    if not (on.dtype.is_floating or on.dtype.is_complex) or _are_fixed(on, off):
        return _one_hot(indices, depth, on, off, axis, name)
    with tf.name_scope(name or "one_hot"):
        return tf.where(_one_hot(indices, depth, True, False, axis), on, off)


def hsv_to_rgb(images: TensorLike, name: str | None = None) -> tf.Tensor:
    """`tf.image.hsv_to_rgb` by its formula, for the same reason."""
    images = tf.convert_to_tensor(images)
    if _are_fixed(images):
        return _hsv_to_rgb(images, name)
    with tf.name_scope(name or "hsv_to_rgb"):
        hue, saturation, value = tf.split(images, 3, -1)
        distances = tf.abs(6 * hue - tf.constant([3, 2, 4], images.dtype))
        # Of red, green and blue.
        signs, ends = (
            tf.constant(numbers, images.dtype) for numbers in ([1, -1, -1], [-1, 2, 2])
        )
        colors = tf.clip_by_value(signs * distances + ends, 0, 1)
        return (1 - saturation + saturation * colors) * value


def apply() -> None:
    """Puts them in the places of TensorFlow's."""
    replace(gen_array_ops, "one_hot", one_hot)
    for module in (gen_image_ops, tf.image):
        replace(module, "hsv_to_rgb", hsv_to_rgb)


def _are_fixed(*tensors: tf.Tensor) -> bool:
    if tf.executing_eagerly():
        return not is_watched(*tensors)
    return all(tf.get_static_value(tensor) is not None for tensor in tensors)


@derivative_of("Range")
def _range(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None, tf.Tensor]:
    """start + i · delta; the limit only tells how many there are."""
    del operation
    numbers = tf.cast(tf.range(tf.size(cotangent)), cotangent.dtype)
    return tf.reduce_sum(cotangent), None, tf.reduce_sum(numbers * cotangent)


@derivative_of("SparseConcat")
def _sparse_concat(
    operation: tf.Operation, *cotangents: tf.Tensor
) -> list[tf.Tensor | None]:
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


@derivative_of("DenseBincount")
def _bincount(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[None, None, tf.Tensor]:
    """Of weights: each gets what is made of its place."""
    values, size, weights = operation.inputs
    if operation.get_attr("binary_output"):
        return None, None, tf.zeros_like(weights)
    batch_dims = values.shape.rank - 1
    counted = values < size
    inside = tf.where(counted, values, tf.zeros_like(values))
    of_weights = tf.gather(cotangent, inside, axis=-1, batch_dims=batch_dims)
    return None, None, tf.where(counted, of_weights, tf.zeros_like(of_weights))
