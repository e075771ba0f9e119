"""Functions of each number, and of pairs of numbers."""

import keras
import tensorflow as tf

from derivatives.rows import (
    ABOVE_ONE,
    COMPLEX,
    POSITIVE,
    PROBABILITY,
    REAL,
    UNIT,
    ZEROS,
    row,
    rows,
)

_ALL = (*ZEROS, *COMPLEX)
_NUMBERS = (*ZEROS, "complex")
_PAIRS = ("smooth", "zeros", "ties")


def table():
    return [*_tensorflow(), *_pairs_of_tensorflow(), *_keras(), *_numpy()]


def _tensorflow():
    three = (3,)
    return [
        *rows(
            "tf.math",
            "abs angle conj cos cosh sin sinh tan tanh exp expm1 negative square "
            "sigmoid sign asinh atan imag real",
            three,
            points=_NUMBERS,
        ),
        *rows(
            "tf.math",
            "log1p sqrt log reciprocal rsqrt",
            three,
            domain=POSITIVE,
            points=_NUMBERS,
        ),
        *rows("tf.math", "asin acos atanh", three, domain=UNIT, points=_NUMBERS),
        row("tf.math.acosh", three, domain=ABOVE_ONE, points=("smooth", "complex")),
        *rows(
            "tf.math",
            "bessel_i0 bessel_i0e bessel_i1 bessel_i1e erf erfc softsign softplus "
            "log_sigmoid ceil floor round rint reciprocal_no_nan",
            three,
            points=ZEROS,
        ),
        *rows("tf.math", "erfinv", three, domain=UNIT, points=ZEROS),
        *rows("tf.math", "ndtri", three, domain=PROBABILITY, points=("smooth", "ties")),
        row("tf.math.erfcinv", three, domain=PROBABILITY),
        row("tf.math.reciprocal_no_nan (complex)", three, points=COMPLEX),
        *rows("tf.math", "lgamma digamma", three, domain=POSITIVE),
        row(
            "tf.math.lgamma (negative)",
            three,
            call=lambda x: tf.math.lgamma(-x),
            domain=PROBABILITY,
        ),
        row("tf.math.lbeta", (2, 3), domain=POSITIVE),
        *rows(
            "tf.math.special",
            "bessel_j0 bessel_j1 dawsn fresnel_cos fresnel_sin",
            three,
            points=ZEROS,
        ),
        *rows(
            "tf.math.special",
            "bessel_k0 bessel_k0e bessel_k1 bessel_k1e bessel_y0 "
            "bessel_y1 spence expint",
            three,
            domain=POSITIVE,
        ),
        *rows(
            "tf.nn",
            "relu relu6 elu selu leaky_relu gelu silu swish crelu tanh sigmoid "
            "softplus softsign",
            three,
            points=ZEROS,
        ),
        row(
            "tf.nn.gelu (approximate)",
            three,
            points=ZEROS,
            call=lambda x: tf.nn.gelu(x, approximate=True),
        ),
        row("tf.nn.silu (learned beta)", three, (), points=ZEROS, call=tf.nn.silu),
        row(
            "tf.nn.leaky_relu (alpha)",
            three,
            points=ZEROS,
            call=lambda x: tf.nn.leaky_relu(x, alpha=0.4),
        ),
        row("tf.math.abs (squared)", three, points=_ALL, call=lambda x: tf.abs(x) ** 2),
        row(
            "tf.math.abs (times itself)",
            three,
            points=_ALL,
            call=lambda x: tf.abs(x) * tf.abs(x),
        ),
        row(
            "tf.math.square (of abs)",
            three,
            points=_ALL,
            call=lambda x: tf.square(tf.abs(x)),
        ),
        row("tf.math.log1p (complex)", three, points=COMPLEX),
        row(
            "tf.math.sqrt (of square plus one)",
            three,
            points=_ALL,
            call=lambda x: tf.sqrt(x * x + 1),
        ),
        row("tf.cast (to float32)", three, call=lambda x: tf.cast(x, tf.float32)),
        row("tf.saturate_cast", three, dtype=tf.float32),
        row("tf.clip_by_value", three, clip_value_min=-0.9, clip_value_max=0.9),
        row(
            "tf.clip_by_value (at its bounds)",
            three,
            points=("ties",),
            call=lambda x: tf.clip_by_value(x, -0.4, 0.4),
        ),
        row(
            "tf.clip_by_value (with learned bounds)",
            three,
            (),
            (),
            call=lambda x, a, b: tf.clip_by_value(x, a - 1, b + 1),
            points=ZEROS,
        ),
        row("tf.clip_by_norm", three, clip_norm=0.7, points=ZEROS),
        row(
            "tf.clip_by_norm (longer than x)",
            three,
            call=lambda x: tf.clip_by_norm(x, 50.0),
            points=ZEROS,
        ),
        row(
            "tf.clip_by_norm (learned)",
            three,
            (),
            domain=POSITIVE,
            call=tf.clip_by_norm,
        ),
        row(
            "tf.clip_by_global_norm",
            three,
            (2,),
            points=ZEROS,
            call=lambda x, y: tf.clip_by_global_norm([x, y], 0.7)[0],
        ),
        row("tf.bitcast", three, call=lambda x: tf.bitcast(x, tf.float64)),
        row("tf.identity", three),
        row("tf.identity_n", three, call=lambda x: tf.identity_n([x, 2 * x])),
        row("tf.ensure_shape", three, shape=[3]),
        row("tf.complex", three, three, points=ZEROS),
    ]


def _pairs_of_tensorflow():
    three = (3,)
    both = (three, three)
    return [
        *rows(
            "tf.math",
            "add subtract multiply squared_difference multiply_no_nan divide_no_nan",
            *both,
            points=(*_PAIRS, *COMPLEX),
        ),
        *rows(
            "tf.math",
            "divide truediv xdivy",
            *both,
            domain=POSITIVE,
            points=("smooth", "ties", "complex"),
        ),
        row(
            "tf.math.xdivy (zero numerator)",
            *both,
            domain=[REAL, POSITIVE],
            points=("smooth",),
            call=lambda x, y: tf.math.xdivy(x * [0.0, 1, 1], y),
        ),
        row(
            "tf.math.xlogy",
            *both,
            domain=[REAL, POSITIVE],
            points=("smooth", "ties", "complex"),
        ),
        row(
            "tf.math.xlogy (zero x)",
            three,
            domain=POSITIVE,
            call=lambda y: tf.math.xlogy(tf.constant([0.0, 1, 2], tf.float64), y),
        ),
        row(
            "tf.math.xlogy (x learned from zero)",
            three,
            three,
            domain=[REAL, POSITIVE],
            call=lambda x, y: tf.math.xlogy(x - REAL.numbers((3,), 0), y + 0.5),
        ),
        row(
            "tf.math.xlog1py",
            *both,
            domain=[REAL, POSITIVE],
            points=("smooth", "zeros", "ties", "complex"),
        ),
        row(
            "tf.math.pow",
            *both,
            domain=[POSITIVE, REAL],
            points=("smooth", "ties", "complex"),
        ),
        row(
            "tf.math.pow (base zero, exponent 2)",
            three,
            points=_ALL,
            call=lambda x: tf.pow(x, tf.constant(2, x.dtype)),
        ),
        row(
            "tf.math.pow (base zero, exponent 1)",
            three,
            points=_ALL,
            call=lambda x: tf.pow(x, tf.constant(1, x.dtype)),
        ),
        row(
            "tf.math.pow (base zero, exponent 0)",
            three,
            points=_ALL,
            call=lambda x: tf.pow(x, tf.constant(0, x.dtype)),
        ),
        row(
            "tf.math.pow (base zero, exponent 3)",
            three,
            points=_ALL,
            call=lambda x: tf.pow(x, tf.constant(3, x.dtype)),
        ),
        row(
            "tf.math.pow (negative base)",
            three,
            call=lambda x: tf.pow(-x, 3.0),
            domain=POSITIVE,
        ),
        row(
            "tf.math.pow (exponent 2 learned, base zero)",
            three,
            (),
            points=ZEROS,
            call=lambda x, p: tf.pow(x * x + 1, p + 2),
        ),
        row("tf.math.atan2", *both, points=("smooth", "ties", "a zero")),
        row(
            "tf.math.atan2 (y zero)",
            *both,
            domain=[REAL, POSITIVE],
            call=lambda y, x: tf.atan2(y * [0.0, 1, 1], x),
        ),
        row(
            "tf.math.atan2 (x zero)",
            *both,
            domain=[POSITIVE, REAL],
            call=lambda y, x: tf.atan2(y, x * [0.0, 1, 1]),
        ),
        *rows("tf.math", "maximum minimum", *both, points=_PAIRS),
        *rows("tf.math", "mod floormod floordiv", *both, domain=POSITIVE),
        *rows("tf", "truncatemod truncatediv realdiv", *both, domain=POSITIVE),
        row("tf.math.nextafter", *both),
        *rows("tf.math", "igamma igammac", *both, domain=POSITIVE),
        row(
            "tf.math.igamma (in x only)",
            three,
            domain=POSITIVE,
            call=lambda x: tf.math.igamma(tf.constant([0.5, 1, 2.5], x.dtype), x),
        ),
        row(
            "tf.math.igammac (in x only)",
            three,
            domain=POSITIVE,
            call=lambda x: tf.math.igammac(tf.constant([0.5, 1, 2.5], x.dtype), x),
        ),
        row(
            "tf.math.polygamma (in x)",
            three,
            domain=POSITIVE,
            call=lambda x: tf.math.polygamma(tf.constant([1.0, 2, 3], x.dtype), x),
        ),
        row(
            "tf.math.zeta (in q)",
            three,
            domain=POSITIVE,
            call=lambda q: tf.math.zeta(tf.constant([2.0, 3, 4], q.dtype), q),
        ),
        row("tf.math.zeta (in x)", three, three, domain=ABOVE_ONE),
        row(
            "tf.math.betainc (in x)",
            three,
            domain=PROBABILITY,
            call=lambda x: tf.math.betainc(
                1.5 * tf.ones_like(x), 2.5 * tf.ones_like(x), x
            ),
        ),
        row("tf.math.betainc (in a and b)", three, three, three, domain=PROBABILITY),
        row(
            "tf.math.accumulate_n",
            *both,
            call=lambda x, y: tf.math.accumulate_n([x, y]),
        ),
        row(
            "tf.math.add_n",
            *both,
            call=lambda x, y: tf.add_n([x, y, x]),
            points=("smooth", "complex"),
        ),
        row("tf.math.scalar_mul", (), three, points=("smooth", "complex")),
        row(
            "tf.math.polyval",
            (),
            (3,),
            (3,),
            points=ZEROS,
            call=lambda a, b, x: tf.math.polyval([a, b, a * b], x),
        ),
        row(
            "tf.where",
            *both,
            call=lambda x, y: tf.where([True, False, True], x, y),
            points=("smooth", "complex"),
        ),
        row(
            "tf.where (the guarded root)",
            three,
            points=ZEROS,
            call=lambda x: tf.where(x > 0.0, tf.sqrt(tf.where(x > 0, x, 1.0)), x),
        ),
        row(
            "tf.where (a division that is not taken)",
            three,
            points=ZEROS,
            call=lambda x: tf.where(x == 0, x, x * tf.math.divide_no_nan(1.0, x)),
        ),
        row("tf.math.squared_difference (of complex)", *both, points=("complex",)),
        row(
            "tf.math.divide_no_nan (zero denominator)",
            *both,
            call=lambda x, y: tf.math.divide_no_nan(x, y * 0),
        ),
        row(
            "tf.math.multiply (broadcast)", (2, 1), (1, 3), points=("smooth", "complex")
        ),
        row("tf.math.pow (broadcast)", (2, 1), (1, 3), domain=POSITIVE),
        row("tf.math.divide (broadcast)", (2, 1), (1, 3), domain=POSITIVE),
        row(
            "tf.stop_gradient (a constant factor)",
            three,
            call=lambda x: x * tf.stop_gradient(tf.constant(2.0, x.dtype)),
        ),
    ]


def _keras():
    three = (3,)
    both = (three, three)
    return [
        *rows(
            "keras.ops",
            "abs absolute angle conj conjugate imag real exp sin cos sinh cosh tan "
            "tanh square negative expm1 arctan arcsinh sign sigmoid",
            three,
            points=_NUMBERS,
        ),
        *rows(
            "keras.ops",
            "sqrt rsqrt log log1p log2 log10 reciprocal",
            three,
            domain=POSITIVE,
            points=_NUMBERS,
        ),
        *rows(
            "keras.ops",
            "arcsin arccos arctanh erfinv",
            three,
            domain=UNIT,
            points=ZEROS,
        ),
        row("keras.ops.arccosh", three, domain=ABOVE_ONE),
        *rows(
            "keras.ops",
            "cbrt exp2 erf erfc fabs i0 sinc softplus softsign silu swish relu relu6 "
            "elu selu gelu celu glu leaky_relu log_sigmoid hard_sigmoid hard_silu "
            "hard_swish hard_tanh hard_shrink soft_shrink tanh_shrink sparse_plus "
            "sparse_sigmoid squareplus ceil floor round trunc deg2rad rad2deg "
            "nan_to_num copy isfinite signbit",
            (4,),
            points=ZEROS,
        ),
        row(
            "keras.ops.threshold", three, points=ZEROS, threshold=0.2, default_value=0.1
        ),
        row("keras.ops.celu (alpha)", three, points=ZEROS, alpha=0.5),
        row(
            "keras.ops.abs (squared)",
            three,
            points=_ALL,
            call=lambda x: keras.ops.abs(x) ** 2,
        ),
        *rows("keras.ops", "add subtract multiply", *both, points=(*_PAIRS, *COMPLEX)),
        *rows(
            "keras.ops",
            "divide true_divide power",
            *both,
            domain=POSITIVE,
            points=("smooth", "ties", "complex"),
        ),
        row("keras.ops.divide_no_nan", *both, points=_PAIRS),
        *rows(
            "keras.ops",
            "logaddexp logaddexp2 hypot arctan2",
            *both,
            points=(*_PAIRS, "a zero"),
        ),
        row(
            "keras.ops.hypot (0, 1)",
            three,
            call=lambda x: keras.ops.hypot(x, tf.ones_like(x)),
            points=ZEROS,
        ),
        row(
            "keras.ops.hypot (1, 0)",
            three,
            call=lambda x: keras.ops.hypot(tf.ones_like(x), x),
            points=ZEROS,
        ),
        *rows("keras.ops", "maximum minimum fmax fmin", *both, points=_PAIRS),
        *rows("keras.ops", "mod fmod floor_divide", *both, domain=POSITIVE),
        row("keras.ops.ldexp", three, call=lambda x: keras.ops.ldexp(x, [1, 2, 3])),
        row("keras.ops.heaviside", *both),
        row("keras.ops.clip", three, x_min=-0.9, x_max=0.9),
        row(
            "keras.ops.where",
            *both,
            call=lambda x, y: keras.ops.where([True, False, True], x, y),
        ),
        row(
            "keras.ops.select",
            *both,
            call=lambda x, y: keras.ops.select(
                [[True, False, False], [False, True, False]], [x, y], 0.5
            ),
        ),
        row("keras.ops.polar", *both, domain=POSITIVE),
        row("keras.ops.nextafter", *both),
        row("keras.ops.view_as_complex", (3, 2), points=ZEROS),
        row("keras.ops.view_as_real", three, points=("complex",)),
        row("keras.ops.cast", three, dtype="float32"),
        row("keras.ops.saturate_cast", three, dtype="float32"),
        row(
            "keras.ops.stop_gradient (a constant)",
            three,
            call=lambda x: x * keras.ops.stop_gradient(tf.constant(2.0, x.dtype)),
        ),
    ]


def _numpy():
    """NumPy's names in TensorFlow: some are code of their own."""
    three = (3,)
    both = (three, three)
    prefix = "tf.experimental.numpy"
    return [
        *rows(
            prefix,
            "cbrt exp2 sinc deg2rad fabs fix square",
            three,
            points=ZEROS,
        ),
        *rows(prefix, "log2 log10", three, domain=POSITIVE),
        *rows(
            prefix,
            "logaddexp logaddexp2 hypot arctan2",
            *both,
            points=(*_PAIRS, "a zero"),
        ),
        *rows(
            prefix, "power float_power true_divide remainder", *both, domain=POSITIVE
        ),
        row(f"{prefix}.heaviside", *both),
        *rows(prefix, "angle real imag conj abs", three, points=COMPLEX),
        *rows(
            prefix,
            "std var mean nanmean nansum nanprod prod ptp",
            (3,),
            points=("smooth", "a zero", "zeros", "ties"),
        ),
    ]
