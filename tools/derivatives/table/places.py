"""Gathering, scattering and stitching."""

import keras
import numpy as np
import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    TIES,
    row,
)

_BOTH = ("smooth", "complex")

_M = (2, 3)


def table():
    return [*_places(), *_keras_places()]


def _places():
    p = "tf.tensor_scatter_nd"
    places = [[1], [0]]
    return [
        row("tf.gather", (3, 2), indices=[2, 0, 2], points=_BOTH),
        row("tf.gather (axis 1)", (3, 2), indices=[1, 0, 1], axis=1),
        row(
            "tf.gather (batch)",
            _M,
            call=lambda x: tf.gather(x, [[0, 0], [2, 1]], batch_dims=1),
            points=_BOTH,
        ),
        row("tf.gather_nd", (3, 2), indices=[[2, 0], [0, 1], [2, 0]], points=_BOTH),
        row(
            "tf.gather_nd (batch)",
            _M,
            call=lambda x: tf.gather_nd(x, [[[0], [0]], [[2], [1]]], batch_dims=1),
        ),
        row(
            "tf.scatter_nd",
            (2,),
            call=lambda x: tf.scatter_nd([[1], [0]], x, [3]),
            points=_BOTH,
        ),
        row(
            "tf.scatter_nd (twice in one place)",
            (3,),
            call=lambda x: tf.scatter_nd([[1], [0], [1]], x, [3]),
            points=_BOTH,
        ),
        *(
            row(f"{p}_{kind}", (3,), (2,), call=_scatter(kind, places), points=_BOTH)
            for kind in ("add", "sub", "update")
        ),
        *(
            row(f"{p}_{kind}", (3,), (2,), call=_scatter(kind, places), points=TIES)
            for kind in ("max", "min")
        ),
        *(
            row(
                f"{p}_{kind} (twice in one place)",
                (3,),
                (3,),
                call=_scatter(kind, [[1], [0], [1]]),
            )
            for kind in ("add", "sub", "update", "max", "min")
        ),
        row(
            "tf.dynamic_stitch",
            (2,),
            (2,),
            points=_BOTH,
            call=lambda x, y: tf.dynamic_stitch([[0, 2], [1, 3]], [x, y]),
        ),
        row(
            "tf.dynamic_stitch (overwriting)",
            (2,),
            (2,),
            points=_BOTH,
            call=lambda x, y: tf.dynamic_stitch([[0, 1], [1, 2]], [x, y]),
        ),
        row(
            "tf.dynamic_stitch (overwriting in one)",
            (3,),
            call=lambda x: tf.dynamic_stitch([[0, 1, 1]], [x]),
        ),
        row(
            "tf.dynamic_stitch (rows)",
            (2, 2),
            (2, 2),
            call=lambda x, y: tf.dynamic_stitch([[0, 1], [1, 2]], [x, y]),
        ),
        row(
            "tf.dynamic_partition",
            (3,),
            call=lambda x: tf.dynamic_partition(x, [1, 0, 1], 2),
            points=_BOTH,
        ),
        row("tf.nn.embedding_lookup", (3, 2), ids=[2, 0, 2], points=_BOTH),
        row("tf.nn.embedding_lookup (norm)", (3, 2), ids=[2, 0, 2], max_norm=0.5),
        row("tf.nn.embedding_lookup_sparse", (3, 2), call=_embedding("mean")),
        row("tf.nn.embedding_lookup_sparse (sum)", (3, 2), call=_embedding("sum")),
        row("tf.nn.embedding_lookup_sparse (sqrtn)", (3, 2), call=_embedding("sqrtn")),
        row(
            "tf.nn.embedding_lookup_sparse (weights)",
            (3, 2),
            (3,),
            domain=POSITIVE,
            call=_embedding("mean"),
        ),
        row(
            "tf.nn.safe_embedding_lookup_sparse",
            (3, 2),
            call=lambda x: tf.nn.safe_embedding_lookup_sparse(
                x, _ids(), combiner="mean"
            ),
        ),
        row("tf.TensorArray", (3,), call=_tensor_array),
    ]


def _scatter(kind, places):
    def call(x, updates):
        return getattr(tf, f"tensor_scatter_nd_{kind}")(x, places, updates)

    return call


def _ids():
    places = np.array([[0, 0], [0, 1], [1, 0]], np.int64)
    return tf.SparseTensor(places, np.array([2, 0, 2], np.int64), [2, 2])


def _embedding(combiner):
    def call(x, weights=None):
        ids = _ids()
        if weights is not None:
            weights = tf.SparseTensor(ids.indices, weights, ids.dense_shape)
        return tf.nn.embedding_lookup_sparse(x, ids, weights, combiner=combiner)

    return call


def _tensor_array(x):
    array = tf.TensorArray(x.dtype, 3)
    for i in range(3):
        array = array.write(i, tf.sin(x[i]) * x)
    return array.stack()


def _keras_places():
    k = keras.ops
    return [
        row("keras.ops.take", (3, 2), call=lambda x: k.take(x, [2, 0, 2], axis=0)),
        row(
            "keras.ops.take (negative)",
            (3, 2),
            call=lambda x: k.take(x, [-1, 0], axis=0),
        ),
        row(
            "keras.ops.take_along_axis",
            _M,
            call=lambda x: k.take_along_axis(
                x, tf.constant([[2, 0, 2], [1, 1, 1]]), axis=1
            ),
        ),
        row("keras.ops.get_item", _M, call=lambda x: k.get_item(x, 1)),
        row("keras.ops.slice", _M, start_indices=[0, 1], shape=(2, 2)),
        row(
            "keras.ops.slice_update",
            _M,
            (2, 2),
            call=lambda x, u: k.slice_update(x, [0, 1], u),
        ),
        row(
            "keras.ops.scatter",
            (3,),
            call=lambda x: k.scatter([[1], [0], [1]], x, (3,)),
        ),
        row(
            "keras.ops.scatter_update",
            (3,),
            (2,),
            call=lambda x, u: k.scatter_update(x, [[1], [0]], u),
        ),
        row(
            "keras.ops.scatter_update (twice in one place)",
            (3,),
            (3,),
            call=lambda x, u: k.scatter_update(x, [[1], [0], [1]], u),
        ),
        row("keras.ops.one_hot (times)", (3,), call=lambda x: k.one_hot([0, 2], 3) * x),
        row(
            "keras.ops.multi_hot (times)",
            (3,),
            call=lambda x: k.multi_hot(tf.constant([0, 2]), 3) * x,
        ),
        row("keras.ops.unique", (3,), call=lambda x: k.unique(x, size=3)),
        row("keras.ops.extract_sequences", (6,), sequence_length=3, sequence_stride=2),
        row(
            "keras.ops.in_top_k (times)",
            _M,
            single=True,
            call=lambda x: (
                k.cast(k.in_top_k(tf.constant([0, 1]), x, 1), x.dtype) * x[:, 0]
            ),
        ),
    ]
