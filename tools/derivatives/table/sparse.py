"""Sparse and ragged tensors."""

import numpy as np
import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    row,
)

_BOTH = ("smooth", "complex")

_M = (2, 3)

_PLACES = np.array([[0, 1], [1, 0], [1, 2]], np.int64)


def table():
    return [*_sparse(), *_ragged()]


def _matrix(values):
    return tf.SparseTensor(_PLACES, values, [2, 3])


def _sparse():
    s = tf.sparse
    other = np.array([[0, 1], [1, 1], [1, 2]], np.int64)

    def second(values):
        return tf.SparseTensor(other, values, [2, 3])

    def on(name, function, *shapes, points=("smooth",), single=False):
        return row(
            f"tf.sparse.{name}",
            *(shapes or ((3,),)),
            call=function,
            points=points,
            single=single,
        )

    return [
        on("to_dense", lambda x: s.to_dense(_matrix(x)), points=_BOTH),
        on("from_dense", lambda x: s.from_dense(x).values, (2, 2)),
        on("add", lambda x, y: s.add(_matrix(x), second(y)).values, (3,), (3,)),
        on("add (dense)", lambda x, y: s.add(_matrix(x), y), (3,), _M),
        on(
            "concat",
            lambda x, y: s.concat(0, [_matrix(x), second(y)]).values,
            (3,),
            (3,),
        ),
        on(
            "concat (axis 1)",
            lambda x, y: s.concat(1, [_matrix(x), second(y)]).values,
            (3,),
            (3,),
        ),
        on("expand_dims", lambda x: s.expand_dims(_matrix(x)).values),
        on(
            "fill_empty_rows",
            lambda x, d: (
                s.fill_empty_rows(tf.SparseTensor(_PLACES, x, [3, 3]), d)[0].values
            ),
            (3,),
            (),
        ),
        on("map_values", lambda x: s.map_values(tf.sin, _matrix(x)).values),
        on(
            "mask",
            lambda x: (
                s.mask(
                    tf.IndexedSlices(tf.stack([x, 2 * x]), tf.constant([0, 1])), [1]
                ).values
            ),
        ),
        on("maximum", lambda x, y: s.maximum(_matrix(x), second(y)).values, (3,), (3,)),
        on("minimum", lambda x, y: s.minimum(_matrix(x), second(y)).values, (3,), (3,)),
        on("reduce_sum", lambda x: s.reduce_sum(_matrix(x), 1)),
        on(
            "reduce_sum (sparse)",
            lambda x: s.reduce_sum(_matrix(x), 1, output_is_sparse=True).values,
        ),
        on("reduce_max", lambda x: s.reduce_max(_matrix(x), 1)),
        on(
            "reorder",
            lambda x: s.reorder(tf.SparseTensor(_PLACES[::-1], x, [2, 3])).values,
        ),
        on("reshape", lambda x: s.reshape(_matrix(x), [3, 2]).values),
        on("reset_shape", lambda x: s.reset_shape(_matrix(x), [4, 4]).values),
        on("retain", lambda x: s.retain(_matrix(x), [True, False, True]).values),
        on(
            "segment_sum (with empty ones)",
            lambda x: s.segment_sum(x, tf.constant([0, 2]), tf.constant([0, 2]), 3),
            (3, 2),
        ),
        on("slice", lambda x: s.slice(_matrix(x), [0, 1], [2, 2]).values),
        on("softmax", lambda x: s.softmax(_matrix(x)).values),
        on(
            "sparse_dense_matmul",
            lambda x, b: s.sparse_dense_matmul(_matrix(x), b),
            (3,),
            (3, 2),
            points=_BOTH,
        ),
        on(
            "sparse_dense_matmul (adjoint)",
            lambda x, b: s.sparse_dense_matmul(_matrix(x), b, adjoint_a=True),
            (3,),
            (2, 2),
            points=_BOTH,
        ),
        on(
            "sampled_addmm",
            lambda a, b, x: s.sampled_addmm(
                tf.constant(_PLACES), x, tf.constant([2, 3]), a, b, 0.5, 1.5
            )[1],
            (2, 2),
            (2, 3),
            (3,),
            single=True,
        ),
        on(
            "split",
            lambda x: [o.values for o in s.split(_matrix(x), num_split=2, axis=0)],
        ),
        on("transpose", lambda x: s.transpose(_matrix(x)).values),
        on("eye (times)", lambda x: s.eye(3, dtype=x.dtype).values * x),
        on(
            "bincount (weights)",
            lambda x: s.bincount(tf.constant([0, 1, 1]), weights=x).values,
        ),
    ]


def _ragged():
    def parts(values):
        return tf.RaggedTensor.from_row_lengths(values, [1, 2])

    return [
        row(
            "tf.ragged.range",
            (),
            (),
            (),
            domain=POSITIVE,
            call=lambda a, b, d: tf.ragged.range(a - 3, b, 0.3 + d).to_tensor(),
        ),
        row(
            "tf.ragged.map_flat_values",
            (3,),
            call=lambda x: tf.ragged.map_flat_values(tf.sin, parts(x)).to_tensor(),
        ),
        row(
            "tf.ragged.boolean_mask",
            (3,),
            call=lambda x: tf.ragged.boolean_mask(x, [True, False, True]),
        ),
        row(
            "tf.ragged.stack",
            (3,),
            call=lambda x: tf.ragged.stack([x, x[:2]]).to_tensor(),
        ),
        row(
            "tf.ragged.stack_dynamic_partitions",
            (3,),
            call=lambda x: tf.ragged.stack_dynamic_partitions(
                x, [1, 0, 1], 2
            ).to_tensor(),
        ),
        row(
            "tf.RaggedTensor (mean of rows)",
            (3,),
            call=lambda x: tf.reduce_mean(parts(x), axis=1),
        ),
        row("tf.RaggedTensor (to_tensor)", (3,), call=lambda x: parts(x).to_tensor()),
        row(
            "tf.RaggedTensor (to_tensor, learned default)",
            (3,),
            (),
            call=lambda x, d: parts(x).to_tensor(d),
        ),
        row(
            "tf.RaggedTensor (to_sparse)",
            (3,),
            call=lambda x: tf.sparse.to_dense(parts(x).to_sparse()),
        ),
        row(
            "tf.RaggedTensor (greatest of rows)",
            (3,),
            call=lambda x: tf.reduce_max(parts(x), axis=1),
        ),
        row(
            "tf.RaggedTensor (concat)",
            (3,),
            call=lambda x: tf.concat([parts(x), 2 * parts(x)], axis=1).to_tensor(),
        ),
    ]
