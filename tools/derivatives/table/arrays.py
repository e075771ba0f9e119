"""Shapes, places, pieces: gathering, scattering, stitching, sparse and ragged."""

import keras
import numpy as np
import tensorflow as tf

from derivatives.rows import POSITIVE, TIES, row, rows

_BOTH = ("smooth", "complex")
_M = (2, 3)


def table():
    return [
        *_shapes(),
        *_places(),
        *_sparse(),
        *_ragged(),
        *_keras_shapes(),
        *_keras_places(),
    ]


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


_PLACES = np.array([[0, 1], [1, 0], [1, 2]], np.int64)


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
            call=lambda a: k.arange(a, a + 3.0, 1.0, dtype="float64"),
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
