"""Images under projective transforms, differentiable in both.

TensorFlow's operation, which `keras.ops.image.affine_transform` and
`perspective_transform` call, has no derivative with respect to the transform, in
silence, and that with respect to the images samples them by the inverse transform,
which is not the derivative. So where a tape looks on, the same values are made by
gathers.
"""

import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import is_watched

_own = tf.raw_ops.ImageProjectiveTransformV3


def image_projective_transform(
    images: TensorLike,
    transforms: TensorLike,
    output_shape: TensorLike,
    fill_value: TensorLike,
    interpolation: str,
    fill_mode: str = "CONSTANT",
    name: str | None = None,
) -> tf.Tensor:
    """`tf.raw_ops.ImageProjectiveTransformV3`, whose arguments and values these are."""
    images, transforms = (tf.convert_to_tensor(one) for one in (images, transforms))
    fill_value = tf.cast(fill_value, tf.float32)
    floating = images.dtype.is_floating
    if not (floating and is_watched(images, transforms, fill_value)):
        return _own(
            images=images,
            transforms=transforms,
            output_shape=output_shape,
            fill_value=fill_value,
            interpolation=interpolation,
            fill_mode=fill_mode,
            name=name,
        )
    with tf.name_scope(name or "image_projective_transform"):
        return _projected(
            *(images, transforms, output_shape, tf.cast(fill_value, images.dtype)),
            *(interpolation, fill_mode),
        )


def apply() -> None:
    """Puts it in the place of TensorFlow's."""
    tf.raw_ops.ImageProjectiveTransformV3 = image_projective_transform


def _projected(
    images: tf.Tensor,
    transforms: tf.Tensor,
    output_shape: TensorLike,
    fill: tf.Tensor,
    interpolation: str,
    fill_mode: str,
) -> tf.Tensor:
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    rows, columns = (
        tf.cast(tf.range(size), tf.float32) for size in tf.unstack(output_shape, 2)
    )
    y, x = rows[:, tf.newaxis], columns[tf.newaxis, :]
    a = tf.unstack(transforms[:, :, tf.newaxis, tf.newaxis], 8, axis=1)
    depth = a[6] * x + a[7] * y + 1
    seen = tf.not_equal(depth, 0)
    depth = tf.where(seen, depth, 1.0)
    shape = tf.concat([[batch], output_shape], 0)
    x, y = (
        tf.broadcast_to(_inside(coordinate / depth, size, fill_mode), shape)
        for coordinate, size in (
            (a[0] * x + a[1] * y + a[2], width),
            (a[3] * x + a[4] * y + a[5], height),
        )
    )
    seen = tf.broadcast_to(seen, shape)[..., tf.newaxis]

    def read(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The images at whole coordinates; `fill` beside them."""
        sides = tf.cast(tf.stack([height, width]), tf.float32)
        places = tf.stack([y, x], axis=-1)
        within = tf.reduce_all((places >= 0) & (places < sides), axis=-1, keepdims=True)
        places = tf.cast(tf.clip_by_value(places, 0.0, sides - 1), tf.int32)
        return tf.where(within, tf.gather_nd(images, places, batch_dims=1), fill)

    if interpolation == "NEAREST":
        values = read(*(tf.sign(c) * tf.floor(tf.abs(c) + 0.5) for c in (y, x)))
        return tf.where(seen, values, fill)
    top, left = tf.floor(y), tf.floor(x)
    below, right = (
        tf.cast(part, images.dtype)[..., tf.newaxis] for part in (y - top, x - left)
    )
    upper = (1 - right) * read(top, left) + right * read(top, left + 1)
    lower = (1 - right) * read(top + 1, left) + right * read(top + 1, left + 1)
    return tf.where(seen, (1 - below) * upper + below * lower, fill)


def _inside(coordinate: tf.Tensor, size: tf.Tensor, fill_mode: str) -> tf.Tensor:
    """Where a coordinate beside the image is read: that of TensorFlow's kernel."""
    if fill_mode == "CONSTANT":
        return coordinate
    size = tf.cast(size, tf.float32)
    last = size - 1
    before, behind = coordinate < 0, coordinate > last
    if fill_mode == "REFLECT":  # [dcba|abcd|dcba]
        period = 2 * size
        low = coordinate + tf.where(
            coordinate < period, period * tf.floor(-coordinate / period), 0.0
        )
        low = tf.where(low < -size, low + period, -low - 1)
        high = coordinate - period * tf.floor(coordinate / period)
        high = tf.where(high >= size, period - high - 1, high)
        coordinate = tf.where(before, low, tf.where(behind, high, coordinate))
    elif fill_mode == "WRAP":  # [abcd|abcd|abcd]
        turn = tf.maximum(last, 1.0)
        low = coordinate + size * (tf.floor(-coordinate / turn) + 1)
        high = coordinate - size * tf.floor(coordinate / turn)
        coordinate = tf.where(before, low, tf.where(behind, high, coordinate))
    return tf.clip_by_value(coordinate, 0.0, last)
