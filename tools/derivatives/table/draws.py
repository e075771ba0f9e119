"""Random draws that depend on parameters, and quantization."""

import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    PROBABILITY,
    row,
)

_SEED = (1, 2)


def table():
    return [*_drawn(), *_quantized()]


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
