"""Linear operators, and Keras' linear algebra."""

import keras
import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    SMOOTH,
    ZEROS,
    row,
    rows,
)
from derivatives.table.matrices import definite, regular, symmetric

_BOTH = ("smooth", "complex")

_M = (3, 3)


def table():
    return [*_operators(), *_keras()]


def _operators():
    o = tf.linalg
    v, two = (3,), (3, 2)

    def used(make):
        """Product, solution, determinant and dense form of an operator."""

        def call(*tensors):
            operator = make(*tensors)
            return (
                operator.matmul(tensors[-1]),
                operator.solve(tensors[-1]),
                operator.log_abs_determinant(),
                operator.to_dense(),
            )

        return call

    return [
        row(
            "tf.linalg.LinearOperatorDiag",
            v,
            two,
            domain=POSITIVE,
            points=_BOTH,
            call=used(lambda d, b: o.LinearOperatorDiag(d)),
        ),
        row(
            "tf.linalg.LinearOperatorFullMatrix",
            _M,
            two,
            points=_BOTH,
            call=used(lambda x, b: o.LinearOperatorFullMatrix(regular(x))),
        ),
        row(
            "tf.linalg.LinearOperatorLowerTriangular",
            _M,
            two,
            points=_BOTH,
            call=used(lambda x, b: o.LinearOperatorLowerTriangular(regular(x))),
        ),
        row(
            "tf.linalg.LinearOperatorScaledIdentity",
            (),
            two,
            domain=POSITIVE,
            points=_BOTH,
            call=used(lambda s, b: o.LinearOperatorScaledIdentity(3, s)),
        ),
        row(
            "tf.linalg.LinearOperatorLowRankUpdate",
            v,
            (3, 1),
            two,
            domain=POSITIVE,
            call=used(
                lambda d, u, b: o.LinearOperatorLowRankUpdate(
                    o.LinearOperatorDiag(d, is_positive_definite=True), u
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorKronecker",
            (2, 2),
            (2, 2),
            (4, 1),
            call=used(
                lambda x, y, b: o.LinearOperatorKronecker(
                    [
                        o.LinearOperatorFullMatrix(x + 2 * tf.eye(2, dtype=x.dtype)),
                        o.LinearOperatorFullMatrix(y + 2 * tf.eye(2, dtype=x.dtype)),
                    ]
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorBlockDiag",
            v,
            _M,
            (6, 1),
            domain=POSITIVE,
            call=used(
                lambda d, x, b: o.LinearOperatorBlockDiag(
                    [o.LinearOperatorDiag(d), o.LinearOperatorFullMatrix(regular(x))]
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorBlockLowerTriangular",
            v,
            _M,
            _M,
            (6, 1),
            domain=POSITIVE,
            call=used(
                lambda d, y, x, b: o.LinearOperatorBlockLowerTriangular(
                    [
                        [o.LinearOperatorDiag(d)],
                        [
                            o.LinearOperatorFullMatrix(y),
                            o.LinearOperatorFullMatrix(regular(x)),
                        ],
                    ]
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorComposition",
            v,
            _M,
            two,
            domain=POSITIVE,
            call=used(
                lambda d, x, b: o.LinearOperatorComposition(
                    [o.LinearOperatorDiag(d), o.LinearOperatorFullMatrix(regular(x))]
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorAdjoint",
            _M,
            two,
            points=_BOTH,
            call=used(
                lambda x, b: o.LinearOperatorAdjoint(
                    o.LinearOperatorFullMatrix(regular(x))
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorInversion",
            _M,
            two,
            points=_BOTH,
            call=used(
                lambda x, b: o.LinearOperatorInversion(
                    o.LinearOperatorFullMatrix(regular(x))
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorHouseholder",
            v,
            two,
            points=SMOOTH,
            call=used(lambda x, b: o.LinearOperatorHouseholder(x)),
        ),
        row(
            "tf.linalg.LinearOperatorToeplitz",
            v,
            v,
            two,
            domain=POSITIVE,
            call=used(
                lambda c, r, b: o.LinearOperatorToeplitz(
                    tf.concat([[3.0], c[1:]], 0), tf.concat([[3.0], r[1:]], 0)
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorTridiag",
            _M,
            two,
            call=used(
                lambda x, b: o.LinearOperatorTridiag(
                    x + tf.constant([[0.0], [3], [0]], x.dtype),
                    diagonals_format="compact",
                )
            ),
        ),
        row(
            "tf.linalg.LinearOperatorCirculant",
            v,
            two,
            domain=POSITIVE,
            call=lambda x, b: tf.math.real(
                o.LinearOperatorCirculant(
                    tf.cast(x, tf.complex128), input_output_dtype=tf.complex128
                ).solve(tf.cast(b, tf.complex128))
            ),
        ),
        row(
            "tf.linalg.LinearOperatorCirculant2D",
            (2, 2),
            (4, 1),
            domain=POSITIVE,
            call=lambda x, b: tf.math.real(
                o.LinearOperatorCirculant2D(
                    tf.cast(x, tf.complex128), input_output_dtype=tf.complex128
                ).matmul(tf.cast(b, tf.complex128))
            ),
        ),
        row(
            "tf.linalg.LinearOperatorCirculant3D",
            (2, 1, 2),
            (4, 1),
            domain=POSITIVE,
            call=lambda x, b: tf.math.real(
                o.LinearOperatorCirculant3D(
                    tf.cast(x, tf.complex128), input_output_dtype=tf.complex128
                ).matmul(tf.cast(b, tf.complex128))
            ),
        ),
        row(
            "tf.linalg.LinearOperatorPermutation",
            two,
            call=lambda b: o.LinearOperatorPermutation([2, 0, 1], dtype=b.dtype).matmul(
                b
            ),
        ),
        row(
            "tf.linalg.LinearOperatorIdentity",
            two,
            call=lambda b: o.LinearOperatorIdentity(3, dtype=b.dtype).matmul(b),
        ),
        row(
            "tf.linalg.LinearOperatorZeros",
            two,
            call=lambda b: o.LinearOperatorZeros(3, dtype=b.dtype).matmul(b) + b,
        ),
    ]


def _keras():
    k = keras.ops
    b = (3, 2)
    return [
        row(
            "keras.ops.det",
            _M,
            call=lambda x: k.det(regular(x)),
            points=(*_BOTH, "identity"),
        ),
        row("keras.ops.det (singular)", _M, points=("zeros",)),
        row(
            "keras.ops.slogdet", _M, call=lambda x: k.slogdet(regular(x)), points=_BOTH
        ),
        row(
            "keras.ops.logdet",
            _M,
            call=lambda x: k.logdet(definite(x)),
            points=("smooth", "zeros"),
        ),
        row(
            "keras.ops.cholesky",
            _M,
            call=lambda x: k.cholesky(definite(x)),
            points=("smooth", "zeros"),
        ),
        row(
            "keras.ops.cholesky (upper)",
            _M,
            call=lambda x: k.cholesky(definite(x), upper=True),
        ),
        row(
            "keras.ops.cholesky_inverse",
            _M,
            call=lambda x: k.cholesky_inverse(k.cholesky(definite(x))),
        ),
        row("keras.ops.eig", _M),
        row(
            "keras.ops.eigh",
            _M,
            call=lambda x: k.eigh(symmetric(x)),
            points=("smooth", "identity"),
        ),
        row("keras.ops.inv", _M, call=lambda x: k.inv(regular(x))),
        row("keras.ops.pinv", (3, 2)),
        row("keras.ops.lstsq", (3, 2), (3, 1)),
        row("keras.ops.lu_factor", _M, call=lambda x: k.lu_factor(regular(x))[0]),
        row("keras.ops.qr", _M, call=lambda x: k.qr(regular(x))),
        row("keras.ops.qr (tall)", (3, 2)),
        row("keras.ops.qr (complete)", (3, 2), mode="complete"),
        row("keras.ops.svd", _M, points=("smooth", "identity")),
        row(
            "keras.ops.svd (values only)",
            _M,
            compute_uv=False,
            points=("smooth", "identity"),
        ),
        row("keras.ops.svd (tall)", (3, 2), full_matrices=False),
        row("keras.ops.solve", _M, b, call=lambda x, b: k.solve(regular(x), b)),
        row(
            "keras.ops.solve_triangular",
            _M,
            b,
            call=lambda x, b: k.solve_triangular(regular(x), b, lower=True),
        ),
        row(
            "keras.ops.solve_triangular (upper)",
            _M,
            b,
            call=lambda x, b: k.solve_triangular(regular(x), b),
        ),
        row("keras.ops.matrix_rank", _M),
        *rows("keras.ops", "norm", (2, 2), points=ZEROS),
        row("keras.ops.norm (1)", (3,), ord=1),
        row("keras.ops.norm (inf)", (3,), ord=float("inf")),
        row("keras.ops.norm (3)", (3,), ord=3),
        row("keras.ops.norm (nuc)", (2, 2), ord="nuc"),
        row("keras.ops.norm (2 of matrices)", (2, 2), ord=2, axis=(0, 1)),
        row(
            "keras.ops.norm (squared)",
            (3,),
            call=lambda x: k.norm(x) ** 2,
            points=ZEROS,
        ),
        row("keras.ops.normalize", (2, 3), points=ZEROS),
        row("keras.ops.normalize (order 3)", (2, 3), order=3),
        row("keras.ops.matmul", (2, 3), (3, 2), points=_BOTH),
        row("keras.ops.dot", (2, 3), (3, 2)),
        row("keras.ops.tensordot", (2, 3), (3, 2), axes=1),
        row(
            "keras.ops.einsum",
            (2, 3),
            (3, 2),
            call=lambda a, b: k.einsum("ij,jk->ki", a, b),
        ),
        row("keras.ops.inner", (2, 3), (2, 3)),
        row("keras.ops.outer", (3,), (2,)),
        row("keras.ops.vdot", (3,), (3,), points=_BOTH),
        row("keras.ops.kron", (2, 2), (2, 2)),
        row("keras.ops.cross", (2, 3), (2, 3)),
        row("keras.ops.trace", _M),
        row("keras.ops.cdist", (2, 3), (2, 3), points=("smooth", "ties")),
        row("keras.ops.vander", (3,), points=ZEROS),
    ]
