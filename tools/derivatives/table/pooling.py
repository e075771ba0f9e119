"""TensorFlow's convolutions and pooling."""

import tensorflow as tf

from derivatives.rows import (
    TIES,
    row,
)

_IMAGE, _ONE = (1, 3, 3, 2), (1, 4, 4, 1)


def table():
    return [*_convolutions(), *_pooling()]


def _convolutions():
    n = tf.nn
    same = {"strides": 1, "padding": "SAME"}
    valid = {"strides": 1, "padding": "VALID"}
    kernel = (2, 2, 2, 1)
    return [
        row("tf.nn.conv1d", (1, 4, 2), (2, 2, 1), stride=1, padding="SAME"),
        row(
            "tf.nn.conv1d (dilated)",
            (1, 5, 1),
            (2, 1, 2),
            stride=1,
            padding="VALID",
            dilations=2,
        ),
        row(
            "tf.nn.conv1d_transpose",
            (1, 2, 1),
            (2, 2, 1),
            call=lambda x, w: n.conv1d_transpose(x, w, [1, 4, 2], 2),
        ),
        row("tf.nn.conv2d", _IMAGE, kernel, **same),
        row("tf.nn.conv2d (stride 2)", _IMAGE, kernel, strides=2, padding="VALID"),
        row("tf.nn.conv2d (dilated)", _IMAGE, kernel, dilations=2, **valid),
        row(
            "tf.nn.conv2d (explicit padding)",
            _IMAGE,
            kernel,
            strides=1,
            padding=[[0, 0], [1, 0], [0, 1], [0, 0]],
        ),
        row("tf.nn.conv2d (groups)", _IMAGE, (2, 2, 1, 2), **valid),
        row(
            "tf.nn.conv2d_transpose",
            (1, 2, 2, 1),
            (2, 2, 2, 1),
            call=lambda x, w: n.conv2d_transpose(x, w, [1, 4, 4, 2], 2),
        ),
        row(
            "tf.nn.conv3d",
            (1, 2, 3, 2, 1),
            (2, 2, 1, 1, 1),
            strides=[1, 1, 1, 1, 1],
            padding="VALID",
        ),
        row(
            "tf.nn.conv3d_transpose",
            (1, 1, 2, 1, 1),
            (1, 2, 2, 1, 1),
            call=lambda x, w: n.conv3d_transpose(
                x, w, [1, 1, 4, 2, 1], [1, 1, 2, 2, 1]
            ),
        ),
        row(
            "tf.nn.conv_transpose",
            (1, 2, 1),
            (2, 2, 1),
            call=lambda x, w: n.conv_transpose(x, w, [1, 4, 2], 2),
        ),
        row("tf.nn.convolution", _IMAGE, kernel, padding="SAME"),
        row(
            "tf.nn.convolution (dilated)", _IMAGE, kernel, padding="VALID", dilations=2
        ),
        row(
            "tf.conv", (1, 3, 3, 1), (2, 2, 1, 1), strides=[1, 1, 1, 1], padding="VALID"
        ),
        row(
            "tf.nn.depthwise_conv2d",
            _IMAGE,
            (2, 2, 2, 1),
            strides=[1, 1, 1, 1],
            padding="SAME",
        ),
        row(
            "tf.nn.depthwise_conv2d (dilated)",
            _IMAGE,
            (2, 2, 2, 1),
            strides=[1, 1, 1, 1],
            padding="VALID",
            dilations=[2, 2],
        ),
        row(
            "tf.nn.depthwise_conv2d_backprop_filter",
            _IMAGE,
            _IMAGE,
            call=lambda x, g: n.depthwise_conv2d_backprop_filter(
                x, [2, 2, 2, 1], g, [1, 1, 1, 1], "SAME"
            ),
        ),
        row(
            "tf.nn.depthwise_conv2d_backprop_input",
            (2, 2, 2, 1),
            _IMAGE,
            call=lambda w, g: n.depthwise_conv2d_backprop_input(
                [1, 3, 3, 2], w, g, [1, 1, 1, 1], "SAME"
            ),
        ),
        row(
            "tf.nn.separable_conv2d",
            _IMAGE,
            (2, 2, 2, 1),
            (1, 1, 2, 1),
            strides=[1, 1, 1, 1],
            padding="VALID",
        ),
        row("tf.nn.atrous_conv2d", _IMAGE, kernel, rate=2, padding="SAME"),
        row(
            "tf.nn.atrous_conv2d_transpose",
            (1, 3, 3, 1),
            (2, 2, 2, 1),
            call=lambda x, w: n.atrous_conv2d_transpose(x, w, [1, 3, 3, 2], 2, "SAME"),
        ),
        row(
            "tf.nn.with_space_to_batch",
            (1, 4, 4, 1),
            call=lambda x: n.with_space_to_batch(
                x, [2, 2], "VALID", lambda y, *_: tf.sin(y) * y
            ),
        ),
        row(
            "tf.nn.dilation2d",
            _ONE,
            (2, 2, 1),
            strides=[1, 1, 1, 1],
            padding="VALID",
            data_format="NHWC",
            dilations=[1, 1, 1, 1],
        ),
        row(
            "tf.nn.erosion2d",
            _ONE,
            (2, 2, 1),
            strides=[1, 1, 1, 1],
            padding="VALID",
            data_format="NHWC",
            dilations=[1, 1, 1, 1],
        ),
        row("tf.nn.bias_add", (2, 3), (3,)),
    ]


def _pooling():
    found = []
    for kind in ("max", "avg"):
        name = f"tf.nn.{kind}_pool"
        points = TIES if kind == "max" else ("smooth",)
        found += [
            row(name, _ONE, ksize=2, strides=2, padding="VALID", points=points),
            row(f"{name}1d", (1, 4, 1), ksize=2, strides=2, padding="VALID"),
            row(f"{name}2d", _ONE, ksize=2, strides=2, padding="SAME"),
            row(f"{name}2d (overlapping)", _ONE, ksize=3, strides=1, padding="VALID"),
            row(
                f"{name}2d (of one size)",
                (1, 3, 3, 1),
                ksize=3,
                strides=1,
                padding="SAME",
            ),
            row(
                f"{name}2d (not square)",
                _ONE,
                ksize=[2, 3],
                strides=[2, 1],
                padding="VALID",
            ),
            row(
                f"{name}3d",
                (1, 2, 2, 2, 1),
                single=True,
                ksize=2,
                strides=2,
                padding="VALID",
            ),
            row(
                f"{name}3d (overlapping)",
                (1, 3, 2, 3, 1),
                single=True,
                ksize=2,
                strides=1,
                padding="SAME",
            ),
        ]
    n = tf.nn
    return [
        *found,
        row(
            "tf.nn.max_pool2d (explicit padding)",
            _ONE,
            ksize=2,
            strides=2,
            padding=[[0, 0], [1, 1], [1, 1], [0, 0]],
        ),
        row(
            "tf.nn.max_pool_with_argmax",
            _ONE,
            single=True,
            call=lambda x: n.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        ),
        row(
            "tf.nn.fractional_max_pool",
            _ONE,
            call=lambda x: n.fractional_max_pool(x, 1.5, seed=1)[0],
        ),
        row(
            "tf.nn.fractional_avg_pool",
            _ONE,
            call=lambda x: n.fractional_avg_pool(x, [1.0, 1.5, 1.5, 1.0], seed=1)[0],
        ),
        *(
            row(
                f"tf.nn.pool ({kind.lower()})",
                _ONE,
                window_shape=[2, 2],
                pooling_type=kind,
                padding="VALID",
            )
            for kind in ("MAX", "AVG")
        ),
        row(
            "tf.nn.pool (dilated)",
            _ONE,
            window_shape=[2, 2],
            pooling_type="MAX",
            padding="VALID",
            dilations=[2, 2],
        ),
    ]
