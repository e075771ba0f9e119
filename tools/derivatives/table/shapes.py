"""Arrays of other shapes."""

import keras
import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    TIES,
    row,
    rows,
)

_BOTH = ("smooth", "complex")

_M = (2, 3)


def table():
    return [*_shapes(), *_keras_shapes()]


def _shapes():
    return [
        row("tf.reshape", _M, shape=[3, 2], points=_BOTH),
        row("tf.transpose", _M, points=_BOTH),
        row("tf.transpose (conjugated)", _M, conjugate=True, points=_BOTH),
        row("tf.concat", _M, _M, call=lambda x, y: tf.concat([x, y], 0), points=_BOTH),
        row("tf.stack", _M, _M, call=lambda x, y: tf.stack([x, y], 1), points=_BOTH),
        row("tf.unstack", _M, points=_BOTH),
        row("tf.split", (4,), num_or_size_splits=[1, 3], points=_BOTH),
        row("tf.tile", _M, multiples=[2, 1], points=_BOTH),
        row("tf.repeat", _M, repeats=[1, 2], axis=0, points=_BOTH),
        row("tf.pad", _M, paddings=[[1, 0], [0, 2]], points=_BOTH),
        row("tf.pad (reflected)", _M, paddings=[[1, 0], [0, 2]], mode="REFLECT"),
        row("tf.pad (symmetric)", _M, paddings=[[1, 0], [0, 2]], mode="SYMMETRIC"),
        row(
            "tf.pad (learned value)",
            _M,
            (),
            call=lambda x, c: tf.pad(x, [[1, 0], [0, 2]], constant_values=c),
        ),
        row("tf.reverse", _M, axis=[1], points=_BOTH),
        row("tf.reverse_sequence", _M, seq_lengths=[2, 3], seq_axis=1, points=_BOTH),
        row("tf.roll", _M, shift=1, axis=1, points=_BOTH),
        row("tf.broadcast_to", (1, 3), shape=[2, 3], points=_BOTH),
        row("tf.expand_dims", _M, axis=0),
        row("tf.guarantee_const", _M),
        row("tf.tuple", _M, call=lambda x: tf.tuple([x, 2 * x])),
        row("tf.squeeze", (1, 3)),
        row("tf.slice", _M, begin=[0, 1], size=[2, 2], points=_BOTH),
        row("tf.strided_slice", _M, begin=[0, 0], end=[2, 3], strides=[1, 2]),
        row(
            "tf.strided_slice (brackets)",
            _M,
            call=lambda x: x[::-1, 1:, None],
            points=_BOTH,
        ),
        row("tf.meshgrid", (2,), (3,)),
        row("tf.linspace", (), (), num=4),
        row(
            "tf.range",
            (),
            (),
            (),
            domain=POSITIVE,
            call=lambda a, b, d: tf.range(a - 3, b, 0.3 + d),
        ),
        row("tf.fill", (), call=lambda x: tf.fill([3], x), points=_BOTH),
        row("tf.eye (times)", (), call=lambda x: tf.eye(2, dtype=x.dtype) * x),
        row(
            "tf.one_hot",
            (),
            (),
            call=lambda on, off: tf.one_hot([0, 2], 3, on_value=on, off_value=off),
        ),
        row("tf.zeros_like", _M, call=lambda x: tf.zeros_like(x) + x),
        row(
            "tf.space_to_batch",
            (1, 2, 2, 1),
            block_shape=[2, 2],
            paddings=[[0, 0], [0, 0]],
        ),
        row(
            "tf.space_to_batch_nd",
            (1, 2, 2, 1),
            block_shape=[2, 2],
            paddings=[[0, 0], [0, 0]],
        ),
        row(
            "tf.batch_to_space",
            (4, 1, 1, 1),
            block_shape=[2, 2],
            crops=[[0, 0], [0, 0]],
        ),
        row("tf.nn.space_to_depth", (1, 2, 2, 1), block_size=2, points=_BOTH),
        row("tf.nn.depth_to_space", (1, 1, 1, 4), block_size=2, points=_BOTH),
        row(
            "tf.extract_volume_patches",
            (1, 2, 2, 2, 1),
            call=lambda x: tf.extract_volume_patches(
                x, [1, 2, 2, 1, 1], [1, 1, 1, 1, 1], "VALID"
            ),
        ),
        row("tf.boolean_mask", (3,), mask=[True, False, True], points=_BOTH),
        row("tf.unique", (3,), call=lambda x: tf.unique(x)[0], points=TIES),
        row("tf.unique_with_counts", (3,), call=lambda x: tf.unique_with_counts(x)[0]),
        row(
            "tf.sequence_mask (times)",
            (3,),
            call=lambda x: tf.sequence_mask(2, 3, dtype=x.dtype) * x,
        ),
        row("tf.searchsorted (piecewise linear)", (3,), (2,), call=_interpolated),
    ]


def _interpolated(y, x):
    """A linear spline with learned values."""
    knots = tf.constant([-2.0, 0, 2], x.dtype)
    place = tf.clip_by_value(tf.searchsorted(knots, x, side="right") - 1, 0, 1)
    left, right = tf.gather(knots, place), tf.gather(knots, place + 1)
    share = (x - left) / (right - left)
    return tf.gather(y, place) * (1 - share) + tf.gather(y, place + 1) * share


def _keras_shapes():
    k = keras.ops
    return [
        row("keras.ops.reshape", _M, newshape=(3, 2)),
        *rows(
            "keras.ops",
            "transpose ravel fliplr flipud flip rot90",
            _M,
            points=_BOTH,
        ),
        row("keras.ops.append", _M, _M, call=k.append),
        row("keras.ops.array", _M),
        row("keras.ops.array_split", _M, indices_or_sections=2, axis=1),
        row("keras.ops.split", (4,), indices_or_sections=2),
        row("keras.ops.hsplit", (2, 4), indices_or_sections=2),
        row("keras.ops.vsplit", (2, 3), indices_or_sections=2),
        row("keras.ops.dsplit", (1, 2, 4), indices_or_sections=2),
        *(
            row(f"keras.ops.{name}", _M, _M, call=_joined(name))
            for name in ("concatenate", "stack", "hstack", "vstack", "dstack")
        ),
        row("keras.ops.unstack", _M),
        row("keras.ops.broadcast_to", (1, 3), shape=(2, 3)),
        row("keras.ops.expand_dims", _M, axis=0),
        row("keras.ops.squeeze", (1, 3)),
        row("keras.ops.moveaxis", _M, source=0, destination=1),
        row("keras.ops.swapaxes", _M, axis1=0, axis2=1),
        row("keras.ops.repeat", _M, repeats=2, axis=0),
        row("keras.ops.tile", _M, repeats=(2, 1)),
        row("keras.ops.roll", _M, shift=1, axis=1),
        row("keras.ops.pad", _M, pad_width=((1, 0), (0, 2))),
        row(
            "keras.ops.pad (learned value)",
            _M,
            (),
            call=lambda x, c: k.pad(x, ((1, 0), (0, 2)), constant_values=c),
        ),
        row(
            "keras.ops.pad (reflected)", _M, pad_width=((1, 0), (0, 2)), mode="reflect"
        ),
        *rows("keras.ops", "tril triu diag diagonal", (3, 3)),
        row("keras.ops.diagflat", (3,)),
        row("keras.ops.diag (of a vector)", (3,)),
        row("keras.ops.meshgrid", (2,), (3,)),
        row("keras.ops.linspace", (), (), num=4),
        row("keras.ops.logspace", (), (), num=4),
        row("keras.ops.geomspace", (), (), num=4, domain=POSITIVE),
        row(
            "keras.ops.arange",
            (),
            domain=POSITIVE,
            single=True,
            call=lambda a: k.arange(a, a + 3.0, 1.0, dtype="float32"),
        ),
        row("keras.ops.full", (), call=lambda x: k.full((3,), x)),
        row("keras.ops.full_like", _M, (), call=k.full_like),
        row("keras.ops.identity (times)", (), call=lambda x: k.identity(2) * x),
        row("keras.ops.rearrange", _M, call=lambda x: k.rearrange(x, "a b -> b a")),
        row("keras.ops.view (same type)", _M, dtype="float64"),
        row("keras.ops.depth_to_space", (1, 1, 1, 4), block_size=2),
        row("keras.ops.space_to_depth", (1, 2, 2, 1), block_size=2),
        row(
            "keras.ops.fold",
            (1, 4, 1),
            call=lambda x: k.fold(x, output_size=(2, 2), kernel_size=(2, 2)),
        ),
        row("keras.ops.unfold", (1, 1, 2, 2), kernel_size=(2, 2)),
    ]


def _joined(name):
    def call(x, y):
        return getattr(keras.ops, name)([x, y])

    return call
