"""TensorFlow's normalizations and losses."""

import numpy as np
import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    PROBABILITY,
    TIES,
    ZEROS,
    row,
    rows,
)


def table():
    return [*_normalizations(), *_losses()]


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
            single=True,
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
