"""Sums, products, moments, orders and scans over axes."""

import keras
import tensorflow as tf

from derivatives.rows import EACH, POSITIVE, PROBABILITY, SMOOTH, TIES, ZEROS, row, rows

_V = (4,)
_COMPLEX = ("complex", "complex zeros")


def table():
    return [*_tensorflow(), *_segments(), *_keras()]


def _tensorflow():
    k = tf.math
    return [
        *rows("tf.math", "reduce_sum reduce_mean", _V, points=("smooth", "complex")),
        row("tf.math.reduce_prod", _V, points=(*EACH, *_COMPLEX)),
        row(
            "tf.math.reduce_prod (two zeros)",
            _V,
            call=lambda x: k.reduce_prod(x * [0.0, 1, 0, 1] + 0 * x) + k.reduce_sum(x),
        ),
        row(
            "tf.math.reduce_prod (of a matrix)",
            (2, 3),
            points=("smooth", "a zero", "complex"),
            axis=1,
        ),
        row(
            "tf.math.reduce_prod (log of abs)",
            (3,),
            points=("smooth", "complex"),
            call=lambda x: tf.math.log(tf.abs(k.reduce_prod(x))),
        ),
        *rows("tf.math", "reduce_max reduce_min", _V, points=TIES),
        *rows(
            "tf.math",
            "reduce_logsumexp reduce_variance reduce_std reduce_euclidean_norm",
            _V,
            points=TIES,
        ),
        row("tf.math.reduce_variance (complex)", _V, points=_COMPLEX),
        row("tf.math.reduce_std (complex)", _V, points=("complex",)),
        row("tf.math.reduce_euclidean_norm (complex)", _V, points=("complex",)),
        row(
            "tf.math.reduce_euclidean_norm (squared)",
            _V,
            points=ZEROS,
            call=lambda x: k.reduce_euclidean_norm(x) ** 2,
        ),
        row(
            "tf.math.reduce_std (squared)",
            _V,
            points=TIES,
            call=lambda x: k.reduce_std(x) ** 2,
        ),
        row("tf.math.cumsum", _V, points=("smooth", "complex")),
        row("tf.math.cumsum (exclusive, reverse)", _V, exclusive=True, reverse=True),
        row("tf.math.cumprod", _V, points=(*EACH, *_COMPLEX)),
        row("tf.math.cumprod (exclusive)", _V, exclusive=True, points=EACH),
        row("tf.math.cumprod (reverse)", _V, reverse=True, points=EACH),
        row(
            "tf.math.cumprod (exclusive, reverse)",
            _V,
            exclusive=True,
            reverse=True,
            points=("smooth", "a zero", "complex"),
        ),
        row(
            "tf.math.cumprod (of a matrix)", (2, 3), axis=1, points=("smooth", "a zero")
        ),
        row("tf.math.cumulative_logsumexp", _V, points=TIES),
        row(
            "tf.math.cumulative_logsumexp (exclusive)",
            _V,
            exclusive=True,
            call=lambda x: k.cumulative_logsumexp(x, exclusive=True)[1:],
            points=TIES,
        ),
        row("tf.math.cumulative_logsumexp (reverse)", _V, reverse=True),
        row("tf.math.top_k", _V, k=2, points=TIES),
        row("tf.math.approx_max_k", _V, k=2, single=True),
        row("tf.sort", _V, points=TIES),
        row("tf.sort (descending)", _V, direction="DESCENDING", points=TIES),
        row(
            "tf.argsort (and gather)",
            _V,
            call=lambda x: tf.gather(x, tf.argsort(x)),
            points=TIES,
        ),
        *(
            row(f"tf.math.{name} (a mask of it)", (3,), (3,), call=_masked(name))
            for name in (
                *("equal", "greater", "greater_equal"),
                *("less", "less_equal", "not_equal"),
            )
        ),
        *(
            row(f"tf.math.{name} (and gather)", (4,), call=_chosen(name))
            for name in ("argmax", "argmin")
        ),
        row(
            "keras.ops.greater (a mask of it)",
            (3,),
            (3,),
            call=lambda x, y: keras.ops.cast(keras.ops.greater(x, y), "float64") * x,
        ),
        row(
            "keras.ops.argmax (and take)",
            _V,
            call=lambda x: keras.ops.take(x, keras.ops.argmax(x)),
        ),
        row(
            "tf.cast (to integers and back)",
            (3,),
            call=lambda x: tf.cast(tf.cast(3 * x, tf.int32), x.dtype) * x,
        ),
        row(
            "tf.math.l2_normalize",
            (2, 3),
            axis=1,
            points=("smooth", "zeros", "complex"),
        ),
        row("tf.math.softmax", (2, 3), points=TIES),
        row("tf.math.log_softmax", (2, 3), points=TIES),
        row("tf.math.softmax (axis 0)", (2, 3), axis=0),
        row("tf.math.zero_fraction", _V, points=ZEROS),
        row("tf.math.count_nonzero", _V, dtype=tf.float64),
        row(
            "tf.math.bincount (weights)",
            _V,
            call=lambda w: k.bincount(tf.constant([0, 1, 1, 2]), weights=w),
        ),
        row(
            "tf.math.bincount (weights, of a matrix)",
            (2, 3),
            call=lambda w: k.bincount(
                tf.constant([[0, 1, 1], [2, 0, 0]]), weights=w, axis=-1
            ),
        ),
        row(
            "tf.math.confusion_matrix (weights)",
            _V,
            call=lambda w: k.confusion_matrix(
                [0, 1, 1, 2], [0, 1, 2, 2], weights=w, dtype=w.dtype
            ),
        ),
        row("tf.nn.moments", (3, 2), axes=[0], points=TIES),
        row("tf.nn.moments (complex)", (3, 2), axes=[0], points=("complex",)),
        row(
            "tf.nn.weighted_moments",
            (3,),
            (3,),
            domain=POSITIVE,
            call=lambda x, w: tf.nn.weighted_moments(x, [0], w),
        ),
        row(
            "tf.nn.sufficient_statistics",
            (3, 2),
            axes=[0],
            call=lambda x: tf.nn.sufficient_statistics(x, [0])[1:3],
        ),
        row(
            "tf.nn.normalize_moments",
            (2,),
            (2,),
            domain=POSITIVE,
            call=lambda m, v: tf.nn.normalize_moments(
                tf.constant(5.0, m.dtype), m, v, None
            ),
        ),
        row(
            "tf.scan",
            _V,
            call=lambda x: tf.scan(lambda a, b: a * b + b, x),
            points=("smooth", "a zero"),
        ),
        row("tf.foldl", _V, call=lambda x: tf.foldl(lambda a, b: a * b + b, x)),
        row("tf.foldr", _V, call=lambda x: tf.foldr(lambda a, b: a * b + b, x)),
        row("tf.map_fn", (2, 3), call=lambda x: tf.map_fn(tf.nn.softmax, x)),
        row(
            "tf.vectorized_map",
            (2, 3),
            call=lambda x: tf.vectorized_map(lambda one: tf.reduce_prod(one) * one, x),
        ),
        row(
            "tf.while_loop",
            (3,),
            call=lambda x: tf.while_loop(
                lambda i, _: i < 3,
                lambda i, y: (i + 1, tf.sin(y) * x),
                (tf.constant(0), x),
                maximum_iterations=3,
            )[1],
        ),
        row(
            "tf.cond",
            (3,),
            call=lambda x: tf.cond(
                tf.reduce_sum(x) > 0, lambda: tf.sin(x), lambda: tf.cos(x)
            ),
        ),
        row(
            "tf.case",
            (3,),
            call=lambda x: tf.case(
                [(tf.reduce_sum(x) > 9, lambda: tf.sin(x))], default=lambda: tf.cos(x)
            ),
        ),
        row(
            "tf.switch_case",
            (3,),
            call=lambda x: tf.switch_case(
                tf.constant(1), [lambda: tf.sin(x), lambda: tf.cos(x)]
            ),
        ),
        row("tf.grad_pass_through", (3,), call=tf.grad_pass_through(tf.sin)),
        row(
            "tf.recompute_grad",
            (3,),
            call=tf.recompute_grad(lambda y: tf.sin(y) * y),
        ),
        row(
            "tf.py_function",
            (3,),
            call=lambda x: tf.py_function(lambda y: tf.sin(y) * y, [x], x.dtype),
        ),
        row(
            "tf.numpy_function",
            (3,),
            call=lambda x: tf.ensure_shape(
                tf.numpy_function(lambda y: y * y, [x], x.dtype), [3]
            ),
        ),
        row("tf.function", (3,), call=tf.function(lambda y: tf.sin(y) * y)),
        row(
            "tf.function (compiled)",
            (3,),
            call=tf.function(lambda y: tf.sin(y) * y, jit_compile=True),
        ),
        row(
            "tf.histogram_fixed_width",
            _V,
            call=lambda x: (
                tf.cast(tf.histogram_fixed_width(x, [-1.0, 1.0], 3), x.dtype) * x[0]
            ),
        ),
        row("tf.gradients (of the user's own)", (3,), call=_own_gradient),
    ]


def _masked(name):
    def call(x, y):
        return tf.cast(getattr(tf.math, name)(x, y), x.dtype) * x

    return call


def _chosen(name):
    def call(x):
        return tf.gather(x, getattr(tf.math, name)(x))

    return call


def _own_gradient(x):
    """A penalty of a gradient within the objective."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(tf.sin(x) * x)
    return tape.gradient(value, x)


def _segments():
    found = []
    for name in ("sum", "mean", "prod", "max", "min"):
        points = EACH if name == "prod" else TIES if name in ("max", "min") else SMOOTH
        found += [
            row(f"tf.math.segment_{name}", _V, points=points, segment_ids=[0, 0, 1, 1]),
            row(
                f"tf.math.unsorted_segment_{name}",
                _V,
                points=points,
                segment_ids=[1, 0, 1, 0],
                num_segments=2,
            ),
            row(
                f"tf.math.unsorted_segment_{name} (an empty one, and dropped)",
                _V,
                call=_finite_segments(name),
            ),
        ]
    found += [
        row(
            f"tf.math.{kind}segment_{name} (complex)",
            _V,
            points=_COMPLEX,
            **(
                {"segment_ids": [0, 0, 1, 1]}
                if not kind
                else {"segment_ids": [1, 0, 1, 0], "num_segments": 2}
            ),
        )
        for kind in ("", "unsorted_")
        for name in ("sum", "mean", "prod")
        if (kind, name) != ("unsorted_", "mean")  # Not of complex numbers.
    ]
    return [
        *found,
        row(
            "tf.math.unsorted_segment_sqrt_n",
            _V,
            segment_ids=[1, 0, 1, 0],
            num_segments=2,
        ),
        *(
            row(f"tf.sparse.segment_{name}", (3, 2), call=_sparse_segment(name))
            for name in ("sum", "mean", "sqrt_n")
        ),
    ]


def _finite_segments(name):
    def call(x):
        function = getattr(tf.math, f"unsorted_segment_{name}")
        return function(x, [2, 0, -1, 0], 3)[::2]

    return call


def _sparse_segment(name):
    def call(x):
        function = getattr(tf.sparse, f"segment_{name}")
        return function(x, tf.constant([0, 2, 2]), tf.constant([0, 0, 1]))

    return call


def _keras():
    k = keras.ops
    return [
        *rows(
            "keras.ops",
            "sum mean var std logsumexp nansum nanmean nanvar nanstd",
            _V,
            points=TIES,
        ),
        *rows("keras.ops", "prod cumprod nanprod nancumprod", _V, points=EACH),
        *rows(
            "keras.ops",
            "max min amax amin nanmax nanmin ptp median nanmedian sort",
            _V,
            points=TIES,
        ),
        *rows("keras.ops", "cumsum nancumsum diff", _V),
        *rows("keras.ops", "quantile nanquantile", _V, q=0.3, points=TIES),
        *rows("keras.ops", "percentile nanpercentile", _V, q=30, points=TIES),
        row(
            "keras.ops.average",
            _V,
            _V,
            domain=POSITIVE,
            call=lambda x, w: k.average(x, weights=w),
        ),
        row("keras.ops.moments", (3, 2), axes=[0], points=TIES),
        row("keras.ops.top_k", _V, k=2, points=TIES),
        row("keras.ops.softmax", (2, 3), points=TIES),
        row("keras.ops.log_softmax", (2, 3), points=TIES),
        row("keras.ops.sparsemax", (2, 3), points=TIES),
        row("keras.ops.corrcoef", (2, 4)),
        row("keras.ops.correlate", (4,), (3,)),
        row("keras.ops.trapezoid", _V),
        row(
            "keras.ops.argsort (and take)",
            _V,
            call=lambda x: k.take(x, k.argsort(x)),
            points=TIES,
        ),
        row("keras.ops.count_nonzero", _V, points=ZEROS),
        row(
            "keras.ops.bincount (weights)",
            _V,
            call=lambda w: k.bincount(tf.constant([0, 1, 1, 2]), weights=w),
        ),
        row(
            "keras.ops.histogram",
            _V,
            call=lambda x: (
                k.cast(k.histogram(x, bins=3, range=(-1.0, 1.0))[0], "float64") * x[0]
            ),
        ),
        *(
            row(
                f"keras.ops.segment_{name}",
                _V,
                segment_ids=tf.constant([0, 1, 1, 0]),
                num_segments=2,
                points=EACH if name == "prod" else TIES,
            )
            for name in ("sum", "max", "min", "prod")
        ),
        row(
            "keras.ops.scan",
            _V,
            call=lambda x: k.scan(lambda c, y: (c * y + y, c), tf.ones((), x.dtype), x),
        ),
        row(
            "keras.ops.associative_scan",
            _V,
            call=lambda x: k.associative_scan(lambda a, b: a * b, x),
            points=("smooth", "a zero"),
        ),
        row(
            "keras.ops.while_loop",
            (3,),
            call=lambda x: k.while_loop(
                lambda i, y: i < 3,
                lambda i, y: (i + 1, k.sin(y) * x),
                (tf.constant(0), x),
                maximum_iterations=3,
            )[1],
        ),
        row(
            "keras.ops.fori_loop",
            (3,),
            call=lambda x: k.fori_loop(0, 3, lambda i, y: k.sin(y) * x, x),
        ),
        row("keras.ops.map", (2, 3), call=lambda x: k.map(k.softmax, x)),
        row(
            "keras.ops.vectorized_map",
            (2, 3),
            call=lambda x: k.vectorized_map(lambda y: k.prod(y) * y, x),
        ),
        row(
            "keras.ops.cond",
            (3,),
            call=lambda x: k.cond(k.sum(x) > 0, lambda: k.sin(x), lambda: k.cos(x)),
        ),
        row(
            "keras.ops.switch",
            (3,),
            call=lambda x: k.switch(1, [k.sin, k.cos], x),
        ),
        row(
            "keras.ops.custom_gradient",
            (3,),
            call=k.custom_gradient(_true_rule),
        ),
        row("keras.ops.jvp", (3,), call=lambda x: k.jvp(k.sin, (x,), (x,))[1]),
        row("keras.ops.psnr", (3,), (3,), domain=PROBABILITY, max_val=1.0),
    ]


def _true_rule(x):
    return (
        tf.sin(x),
        lambda *arguments, upstream=None: (
            (upstream if upstream is not None else arguments[0]) * tf.cos(x)
        ),
    )
