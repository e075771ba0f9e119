"""TensorFlow's parts of networks, random draws, and quantization."""

import numpy as np
import tensorflow as tf

from derivatives.rows import POSITIVE, PROBABILITY, TIES, ZEROS, row, rows

_IMAGE, _ONE = (1, 3, 3, 2), (1, 4, 4, 1)
_SEED = (1, 2)


def table():
    return [
        *_convolutions(),
        *_pooling(),
        *_normalizations(),
        *_losses(),
        *_drawn(),
        *_quantized(),
    ]


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


def _normalizations():
    n = tf.nn
    v = (2,)
    return [
        row(
            "tf.nn.batch_normalization",
            (3, 2),
            v,
            v,
            v,
            v,
            domain=POSITIVE,
            call=lambda x, m, s, b, g: n.batch_normalization(x, m, s, b, g, 1e-3),
        ),
        row(
            "tf.nn.batch_norm_with_global_normalization",
            (1, 1, 3, 2),
            v,
            v,
            v,
            v,
            domain=POSITIVE,
            single=True,
            call=lambda x, m, s, b, g: n.batch_norm_with_global_normalization(
                x, m, s, b, g, 1e-3, True
            ),
        ),
        row(
            "tf.compat.v1.nn.fused_batch_norm (training)",
            (2, 2, 1, 2),
            v,
            v,
            single=True,
            call=tf.compat.v1.nn.fused_batch_norm,
        ),
        row(
            "tf.compat.v1.nn.fused_batch_norm (mean and variance)",
            (2, 2, 1, 2),
            v,
            v,
            v,
            v,
            single=True,
            domain=POSITIVE,
            call=lambda x, s, b, m, w: tf.compat.v1.nn.fused_batch_norm(
                x, s, b, m, w, is_training=False
            )[0],
        ),
        row("tf.compat.v1.nn.moments", (3, 2), axes=[0], points=TIES),
        row("tf.compat.v2.nn.moments", (3, 2), axes=[0], points=TIES),
        row("tf.nn.local_response_normalization", (1, 1, 2, 3), single=True),
        row("tf.nn.l2_normalize", (2, 3), axis=1, points=("smooth", "complex")),
        row("tf.nn.l2_loss", (3,), points=ZEROS),
        *rows("tf.nn", "softmax log_softmax", (2, 3), points=TIES),
        row("tf.nn.zero_fraction", (3,)),
        row("tf.nn.top_k", (4,), k=2, points=TIES),
        row(
            "tf.nn.isotonic_regression",
            (4,),
            call=lambda x: n.isotonic_regression(x)[0],
        ),
        row(
            "tf.nn.isotonic_regression (axis)",
            (2, 3),
            call=lambda x: n.isotonic_regression(x, decreasing=False)[0],
        ),
        row("tf.nn.scale_regularization_loss", (), call=n.scale_regularization_loss),
        row("tf.nn.compute_average_loss", (4,), global_batch_size=4),
        row(
            "tf.nn.compute_average_loss (weights)",
            (4,),
            (4,),
            call=lambda x, w: n.compute_average_loss(x, w, global_batch_size=4),
        ),
    ]


def _losses():
    n = tf.nn
    c = (2, 3)
    labels = np.array([[0, 1.0, 0], [0.2, 0.3, 0.5]])
    return [
        row(
            "tf.nn.softmax_cross_entropy_with_logits",
            c,
            points=TIES,
            call=lambda x: n.softmax_cross_entropy_with_logits(labels, x),
        ),
        row(
            "tf.nn.softmax_cross_entropy_with_logits (labels)",
            c,
            c,
            domain=PROBABILITY,
            call=n.softmax_cross_entropy_with_logits,
        ),
        row(
            "tf.nn.sparse_softmax_cross_entropy_with_logits",
            c,
            points=TIES,
            call=lambda x: n.sparse_softmax_cross_entropy_with_logits([1, 2], x),
        ),
        row(
            "tf.nn.sigmoid_cross_entropy_with_logits",
            c,
            points=TIES,
            call=lambda x: n.sigmoid_cross_entropy_with_logits(labels, x),
        ),
        row(
            "tf.nn.sigmoid_cross_entropy_with_logits (labels)",
            c,
            c,
            points=TIES,
            call=n.sigmoid_cross_entropy_with_logits,
        ),
        row(
            "tf.nn.weighted_cross_entropy_with_logits",
            c,
            points=TIES,
            call=lambda x: n.weighted_cross_entropy_with_logits(labels, x, 2.0),
        ),
        row(
            "tf.nn.weighted_cross_entropy_with_logits (weight)",
            c,
            (),
            domain=POSITIVE,
            call=lambda x, p: n.weighted_cross_entropy_with_logits(labels, x, p),
        ),
        row(
            "tf.nn.log_poisson_loss",
            c,
            points=TIES,
            call=lambda x: n.log_poisson_loss(labels, x),
        ),
        row(
            "tf.nn.log_poisson_loss (full)",
            c,
            call=lambda x: n.log_poisson_loss(labels + 2, x, compute_full_loss=True),
        ),
        row(
            "tf.nn.ctc_loss",
            (3, 1, 3),
            single=True,
            points=TIES,
            call=lambda x: n.ctc_loss([[1]], x, [1], [3], blank_index=0),
        ),
        row(
            "tf.nn.ctc_loss (sparse labels)",
            (3, 1, 3),
            single=True,
            call=lambda x: n.ctc_loss(
                tf.SparseTensor([[0, 0]], np.array([1], np.int32), [1, 1]),
                x,
                None,
                [3],
                blank_index=0,
            ),
        ),
        row(
            "tf.nn.nce_loss",
            (4, 2),
            (4,),
            (2, 2),
            call=lambda w, b, x: n.nce_loss(
                w,
                b,
                tf.constant([[0], [2]], tf.int64),
                x,
                2,
                4,
                sampled_values=_sampled(),
            ),
        ),
        row(
            "tf.nn.sampled_softmax_loss",
            (4, 2),
            (4,),
            (2, 2),
            call=lambda w, b, x: n.sampled_softmax_loss(
                w,
                b,
                tf.constant([[0], [2]], tf.int64),
                x,
                2,
                4,
                sampled_values=_sampled(),
            ),
        ),
    ]


def _sampled():
    return (
        tf.constant([1, 3], tf.int64),
        tf.constant([[0.5], [0.5]], tf.float64),
        tf.constant([0.5, 0.5], tf.float64),
    )


def _drawn():
    r = tf.random
    shape = [3]
    f = {"dtype": tf.float64}
    return [
        row(
            "tf.random.stateless_uniform",
            (),
            (),
            call=lambda a, b: r.stateless_uniform(shape, _SEED, a, b + 2, **f),
        ),
        row(
            "tf.random.stateless_normal",
            (),
            (),
            call=lambda a, b: r.stateless_normal(shape, _SEED, a, b, **f),
        ),
        row(
            "tf.random.stateless_truncated_normal",
            (),
            (),
            call=lambda a, b: r.stateless_truncated_normal(shape, _SEED, a, b, **f),
        ),
        row(
            "tf.random.stateless_gamma",
            (),
            domain=POSITIVE,
            call=lambda a: r.stateless_gamma(shape, _SEED, a, **f),
        ),
        row(
            "tf.random.stateless_gamma (beta)",
            (),
            domain=POSITIVE,
            call=lambda b: r.stateless_gamma(
                shape, _SEED, tf.constant(1.5, b.dtype), b, **f
            ),
        ),
        row(
            "tf.random.stateless_parameterized_truncated_normal",
            (),
            (),
            domain=POSITIVE,
            call=lambda a, b: r.stateless_parameterized_truncated_normal(
                shape, _SEED, a, b, a - 2.0, a + 3.0
            ),
        ),
        row(
            "tf.random.stateless_poisson",
            (),
            domain=POSITIVE,
            call=lambda a: r.stateless_poisson(shape, _SEED, a, dtype=tf.float64) * a,
        ),
        row(
            "tf.random.stateless_binomial",
            (),
            domain=PROBABILITY,
            call=lambda p: (
                r.stateless_binomial(
                    shape, _SEED, 5.0 + 0 * p, p, output_dtype=tf.float64
                )
                * p
            ),
        ),
        row(
            "tf.random.stateless_categorical",
            (1, 3),
            call=lambda x: tf.gather(x[0], r.stateless_categorical(x, 3, _SEED)[0]),
        ),
        row(
            "tf.random.gamma",
            (),
            domain=POSITIVE,
            call=lambda a: r.gamma(shape, a, seed=1, dtype=tf.float64),
        ),
        row(
            "tf.random.normal (times)",
            shape,
            call=lambda x: r.normal([3], seed=1, dtype=x.dtype) * x,
        ),
        row(
            "tf.random.uniform (times)",
            shape,
            call=lambda x: r.uniform([3], seed=1, dtype=x.dtype) * x,
        ),
        row("tf.random.shuffle", shape, call=lambda x: r.shuffle(x, seed=1)),
        row(
            "tf.random.experimental.stateless_shuffle",
            shape,
            call=lambda x: r.experimental.stateless_shuffle(x, _SEED),
        ),
        row(
            "tf.random.experimental.stateless_fold_in (and draw)",
            shape,
            call=lambda x: (
                r.stateless_normal(
                    [3], r.experimental.stateless_fold_in(_SEED, 3), dtype=x.dtype
                )
                * x
            ),
        ),
        row("tf.nn.dropout", shape, rate=0.4, seed=1),
        row("tf.nn.experimental.stateless_dropout", shape, rate=0.4, seed=_SEED),
        row(
            "tf.nn.experimental.stateless_dropout (learned rate)",
            shape,
            (),
            domain=PROBABILITY,
            call=lambda x, r: tf.nn.experimental.stateless_dropout(x, r, seed=_SEED),
        ),
        row(
            "tf.nn.experimental.general_dropout",
            shape,
            call=lambda x: tf.nn.experimental.general_dropout(
                x,
                0.4,
                lambda shape, dtype: r.stateless_uniform(shape, _SEED, dtype=dtype),
            ),
        ),
    ]


def _quantized():
    q = tf.quantization
    return [
        row("tf.quantization.fake_quant_with_min_max_args", (3,), single=True),
        row(
            "tf.quantization.fake_quant_with_min_max_vars",
            (3,),
            (),
            (),
            single=True,
            call=lambda x, a, b: q.fake_quant_with_min_max_vars(x, a - 3, b + 3),
        ),
        row(
            "tf.quantization.fake_quant_with_min_max_vars_per_channel",
            (2, 3),
            (3,),
            (3,),
            single=True,
            call=lambda x, a, b: q.fake_quant_with_min_max_vars_per_channel(
                x, a - 3, b + 3
            ),
        ),
        row(
            "tf.quantization.fake_quant_with_min_max_args_gradient",
            (3,),
            (3,),
            single=True,
        ),
        row(
            "tf.quantization.fake_quant_with_min_max_vars_gradient",
            (3,),
            (3,),
            single=True,
            call=lambda g, x: q.fake_quant_with_min_max_vars_gradient(g, x, -2.0, 2.0)[
                0
            ],
        ),
        row(
            "tf.quantization.fake_quant_with_min_max_vars_per_channel_gradient",
            (2, 3),
            (2, 3),
            single=True,
            call=lambda g, x: q.fake_quant_with_min_max_vars_per_channel_gradient(
                g, x, [-2.0, -2, -2], [2.0, 2, 2]
            )[0],
        ),
        row(
            "tf.quantization.quantize_and_dequantize",
            (3,),
            call=lambda x: q.quantize_and_dequantize(
                x, -2.0, 1.5, num_bits=3, range_given=True
            ),
        ),
        row(
            "tf.quantization.quantize_and_dequantize_v2",
            (3,),
            call=lambda x: q.quantize_and_dequantize_v2(
                x, -2.0, 1.5, num_bits=3, range_given=True
            ),
        ),
        row(
            "tf.quantization.quantize_and_dequantize_v2 (range of x)",
            (3,),
            call=lambda x: q.quantize_and_dequantize_v2(x, -2.0, 1.5, num_bits=3),
        ),
        row(
            "tf.quantization.quantize_and_dequantize_v2 (learned range)",
            (3,),
            (),
            (),
            call=lambda x, a, b: q.quantize_and_dequantize_v2(
                x, a - 2, b + 2, num_bits=3, range_given=True
            ),
        ),
        row(
            "tf.quantization.quantize_and_dequantize_v2 (out of range)",
            (3,),
            call=lambda x: q.quantize_and_dequantize_v2(
                3 * x, -1.0, 1.0, num_bits=3, range_given=True
            ),
        ),
        row(
            "tf.raw_ops.QuantizeAndDequantizeV4Grad",
            (3,),
            (3,),
            call=lambda g, x: tf.raw_ops.QuantizeAndDequantizeV4Grad(
                gradients=g,
                input=x,
                input_min=tf.constant(-1.0, x.dtype),
                input_max=tf.constant(1.0, x.dtype),
            )[0],
        ),
    ]
