"""Matrices: products, factors, solutions, spectra, and operators."""

import keras
import tensorflow as tf

from derivatives.rows import POSITIVE, SMOOTH, ZEROS, resolve, row, rows

_BOTH = ("smooth", "complex")
_SPECTRA = ("smooth", "complex", "identity", "zeros")
_M = (3, 3)


def table():
    return [
        *_products(),
        *_factors(),
        *_spectra(),
        *_solutions(),
        *_operators(),
        *_keras(),
    ]


def symmetric(x):
    """Its symmetric (Hermitian) part, so that each direction is one in these."""
    return (x + tf.linalg.adjoint(x)) / 2


def definite(x):
    """A positive definite matrix: x xᴴ + 1."""
    return tf.matmul(x, x, adjoint_b=True) + tf.eye(3, dtype=x.dtype)


def regular(x):
    """Far from singular."""
    return x + 2 * tf.eye(3, dtype=x.dtype)


def _of(name, wrap, function=None, points=_BOTH, case=None, **keywords):
    def call(x, *rest):
        return (function or _named(name))(wrap(x), *rest, **keywords)

    label = name if case is None else f"{name} ({case})"
    return row(label, _M, call=call, points=points)


def _named(name):
    return resolve(name)


def _products():
    v = (3,)
    return [
        *rows("tf.linalg", "matmul", (2, 3), (3, 2), points=(*_BOTH, "zeros")),
        row("tf.linalg.matmul (adjoint)", (3, 2), (3, 2), adjoint_a=True, points=_BOTH),
        row(
            "tf.linalg.matmul (transposed)",
            (2, 3),
            (2, 3),
            transpose_b=True,
            points=_BOTH,
        ),
        row("tf.linalg.matmul (batch)", (2, 2, 3), (2, 3, 2), points=_BOTH),
        row("tf.linalg.matmul (broadcast batch)", (2, 2, 3), (3, 2), points=_BOTH),
        row("tf.linalg.matvec", (2, 3), v, points=_BOTH),
        row(
            "tf.linalg.einsum",
            (2, 3),
            (3, 2),
            points=_BOTH,
            call=lambda a, b: tf.einsum("ij,jk->ki", a, b),
        ),
        row(
            "tf.einsum (three)",
            (2, 3),
            (3, 2),
            v,
            points=_BOTH,
            call=lambda a, b, c: tf.einsum("ij,jk,j->ik", a, b, c),
        ),
        row(
            "tf.einsum (trace)", _M, points=_BOTH, call=lambda a: tf.einsum("ii->i", a)
        ),
        row("tf.tensordot", (2, 3), (3, 2), axes=1, points=_BOTH),
        row(
            "tf.tensordot (two axes)",
            (2, 3),
            (3, 2),
            axes=[[0, 1], [1, 0]],
            points=_BOTH,
        ),
        row("tf.linalg.cross", (2, 3), (2, 3), points=SMOOTH),
        row("tf.linalg.trace", _M, points=_BOTH),
        row("tf.linalg.band_part", _M, num_lower=1, num_upper=0, points=_BOTH),
        row("tf.linalg.diag", v, points=_BOTH),
        row(
            "tf.linalg.diag (padded)",
            v,
            (),
            call=lambda x, p: tf.linalg.diag(x, k=1, padding_value=p),
        ),
        row("tf.linalg.diag_part", _M, points=_BOTH),
        row(
            "tf.linalg.diag_part (padded)",
            _M,
            (),
            call=lambda x, p: tf.linalg.diag_part(x, k=(-1, 1), padding_value=p),
        ),
        row("tf.linalg.set_diag", _M, v, points=_BOTH),
        row("tf.linalg.tensor_diag", v, points=_BOTH),
        row("tf.linalg.tensor_diag_part", _M, points=_BOTH),
        row("tf.linalg.matrix_transpose", (2, 3), points=_BOTH),
        row("tf.linalg.adjoint", (2, 3), points=_BOTH),
        row(
            "tf.linalg.global_norm",
            (2, 2),
            v,
            points=ZEROS,
            call=lambda a, b: tf.linalg.global_norm([a, b]),
        ),
        *rows("tf.linalg", "norm", (2, 2), points=(*_BOTH, "zeros")),
        row(
            "tf.linalg.norm (squared)",
            v,
            points=(*_BOTH, "zeros", "complex zeros"),
            call=lambda x: tf.norm(x) ** 2,
        ),
        row("tf.linalg.norm (1)", v, ord=1, points=_BOTH),
        row("tf.linalg.norm (inf)", v, ord=float("inf"), points=_BOTH),
        row("tf.linalg.norm (3)", v, ord=3, points=_BOTH),
        row("tf.linalg.norm (fro)", (2, 2), ord="fro", axis=[0, 1], points=_BOTH),
        row("tf.linalg.norm (2 of matrices)", (2, 2), ord=2, axis=[0, 1]),
        row("tf.linalg.normalize", v, points=_BOTH),
        row("tf.linalg.l2_normalize", v, points=(*_BOTH, "zeros")),
        row("tf.linalg.tridiagonal_matmul", (3, 3), (3, 2), points=_BOTH),
    ]


def _factors():
    return [
        _of("tf.linalg.det", regular, points=(*_BOTH, "identity")),
        row("tf.linalg.det (singular)", _M, points=("zeros", "ties")),
        row(
            "tf.linalg.det (rank 2)",
            (3, 2),
            call=lambda x: tf.linalg.det(tf.matmul(x, x, transpose_b=True)),
        ),
        row("tf.linalg.det (batch)", (2, 2, 2), points=_BOTH),
        _of("tf.linalg.slogdet", regular, case=None, points=(*_BOTH, "identity")),
        row(
            "tf.linalg.slogdet (negative)",
            _M,
            points=SMOOTH,
            call=lambda x: tf.linalg.slogdet(-regular(x)),
        ),
        _of("tf.linalg.logdet", definite, points=(*_BOTH, "zeros")),
        _of("tf.linalg.cholesky", definite, points=(*_BOTH, "zeros")),
        row(
            "tf.linalg.qr",
            _M,
            points=(*_BOTH, "identity"),
            call=lambda x: tf.linalg.qr(regular(x)),
        ),
        row("tf.linalg.qr (tall)", (3, 2), points=_BOTH),
        row("tf.linalg.qr (wide)", (2, 3), points=_BOTH),
        row("tf.linalg.qr (full)", (3, 2), full_matrices=True, points=_BOTH),
        row(
            "tf.linalg.qr (R)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.qr(regular(x))[1],
        ),
        row(
            "tf.linalg.lu", _M, points=_BOTH, call=lambda x: tf.linalg.lu(regular(x))[0]
        ),
        row(
            "tf.linalg.lu (pivoting)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.lu(tf.reverse(regular(x), [0]))[0],
        ),
        row(
            "tf.linalg.lu_solve",
            _M,
            (3, 2),
            points=_BOTH,
            call=lambda x, b: tf.linalg.lu_solve(*tf.linalg.lu(regular(x)), b),
        ),
        row(
            "tf.linalg.lu_matrix_inverse",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.lu_matrix_inverse(*tf.linalg.lu(regular(x))),
        ),
        row(
            "tf.linalg.lu_reconstruct",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.lu_reconstruct(*tf.linalg.lu(regular(x))),
        ),
        _of("tf.linalg.inv", regular, points=(*_BOTH, "zeros", "identity")),
        row(
            "tf.linalg.inv (adjoint)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.inv(regular(x), adjoint=True),
        ),
        _of("tf.linalg.pinv", regular, points=SMOOTH),
        row("tf.linalg.pinv (tall)", (3, 2), points=SMOOTH),
        row("tf.linalg.pinv (wide)", (2, 3), points=SMOOTH),
        row("tf.linalg.pinv (identity)", _M, points=("identity",)),
        _of("tf.linalg.sqrtm", definite, points=(*_BOTH, "zeros")),
        row(
            "tf.linalg.sqrtm (not symmetric)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.sqrtm(2 * regular(x)),
        ),
        _of("tf.linalg.expm", lambda x: x, points=(*_BOTH, "zeros", "identity")),
        row(
            "tf.linalg.logm",
            _M,
            points=("complex",),
            call=lambda x: tf.linalg.logm(regular(x)),
        ),
        row("tf.linalg.matrix_rank", _M, points=SMOOTH),
    ]


def _spectra():
    return [
        _of("tf.linalg.eigh", symmetric, points=_SPECTRA),
        _of(
            "tf.linalg.eigh",
            symmetric,
            case="values of it",
            points=_SPECTRA,
            function=lambda x: tf.linalg.eigh(x)[0],
        ),
        _of(
            "tf.linalg.eigh",
            symmetric,
            points=_SPECTRA,
            case="the logarithm by it",
            function=_logarithm,
        ),
        _of(
            "tf.linalg.eigh",
            symmetric,
            points=_SPECTRA,
            case="projection on one",
            function=_projection,
        ),
        _of("tf.linalg.eigvalsh", symmetric, points=_SPECTRA),
        _of(
            "tf.linalg.eigvalsh",
            symmetric,
            points=_SPECTRA,
            case="sum of exp",
            function=lambda x: tf.reduce_sum(tf.exp(tf.linalg.eigvalsh(x))),
        ),
        _of(
            "tf.linalg.eigvalsh",
            symmetric,
            points=_SPECTRA,
            case="sum of squares",
            function=lambda x: tf.reduce_sum(tf.linalg.eigvalsh(x) ** 2),
        ),
        row("tf.linalg.eig", _M, points=_BOTH),
        row("tf.linalg.eigvals", _M, points=_BOTH),
        row(
            "tf.linalg.eigvals (sum of squares)",
            _M,
            points=_SPECTRA,
            call=lambda x: tf.reduce_sum(tf.linalg.eigvals(x) ** 2),
        ),
        row("tf.linalg.svd", _M, points=_SPECTRA),
        row("tf.linalg.svd (tall)", (3, 2), points=_BOTH),
        row("tf.linalg.svd (wide)", (2, 3), points=_BOTH),
        row("tf.linalg.svd (full)", (3, 2), full_matrices=True),
        row("tf.linalg.svd (values only)", _M, compute_uv=False, points=_SPECTRA),
        row(
            "tf.linalg.svd (sum of squares of values)",
            _M,
            points=_SPECTRA,
            call=lambda x: tf.reduce_sum(tf.linalg.svd(x, compute_uv=False) ** 2),
        ),
        row(
            "tf.linalg.svd (values of tall ones)",
            (3, 2),
            compute_uv=False,
            points=_BOTH,
        ),
        row("tf.linalg.svd (put together again)", _M, points=_SPECTRA, call=_low_rank),
        row(
            "tf.linalg.svd (square of the greatest)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.svd(x, compute_uv=False)[0] ** 2,
        ),
        row("tf.linalg.eigh_tridiagonal", (4,), (3,), points=SMOOTH),
        row(
            "tf.linalg.eigh_tridiagonal (with vectors)",
            (4,),
            (3,),
            call=lambda a, b: tf.linalg.eigh_tridiagonal(a, b, eigvals_only=False),
        ),
    ]


def _logarithm(x):
    values, vectors = tf.linalg.eigh(x)
    scaled = vectors * tf.cast(tf.math.log1p(tf.square(values)), x.dtype)
    return tf.matmul(scaled, vectors, adjoint_b=True)


def _projection(x):
    _, vectors = tf.linalg.eigh(x)
    return tf.matmul(vectors[:, :1], vectors[:, :1], adjoint_b=True)


def _low_rank(x):
    values, left, right = tf.linalg.svd(x)
    values = tf.cast(tf.square(values), x.dtype)
    return tf.matmul(left * values, right, adjoint_b=True)


def _solutions():
    b = (3, 2)
    return [
        row(
            "tf.linalg.solve",
            _M,
            b,
            points=(*_BOTH, "zeros"),
            call=lambda x, b: tf.linalg.solve(regular(x), b),
        ),
        row(
            "tf.linalg.solve (adjoint)",
            _M,
            b,
            points=_BOTH,
            call=lambda x, b: tf.linalg.solve(regular(x), b, adjoint=True),
        ),
        row(
            "tf.linalg.triangular_solve",
            _M,
            b,
            points=_BOTH,
            call=lambda x, b: tf.linalg.triangular_solve(regular(x), b),
        ),
        row(
            "tf.linalg.triangular_solve (upper, adjoint)",
            _M,
            b,
            points=_BOTH,
            call=lambda x, b: tf.linalg.triangular_solve(
                regular(x), b, lower=False, adjoint=True
            ),
        ),
        row(
            "tf.linalg.triangular_solve (broadcast)",
            _M,
            (2, 3, 2),
            points=_BOTH,
            call=lambda x, b: tf.linalg.triangular_solve(regular(x), b),
        ),
        row(
            "tf.linalg.cholesky_solve",
            _M,
            b,
            points=_BOTH,
            call=lambda x, b: tf.linalg.cholesky_solve(
                tf.linalg.cholesky(definite(x)), b
            ),
        ),
        row("tf.linalg.lstsq", (3, 2), (3, 1), points=_BOTH),
        row("tf.linalg.lstsq (wide)", (2, 3), (2, 1), points=_BOTH),
        row("tf.linalg.lstsq (l2)", (3, 2), (3, 1), l2_regularizer=0.3),
        row(
            "tf.linalg.lstsq (learned l2)",
            (3, 2),
            (3, 1),
            (),
            domain=POSITIVE,
            call=tf.linalg.lstsq,
        ),
        row("tf.linalg.lstsq (fast=False)", (3, 2), (3, 1), fast=False),
        row(
            "tf.linalg.tridiagonal_solve",
            _M,
            (3,),
            points=_BOTH,
            call=lambda x, b: tf.linalg.tridiagonal_solve(
                x + tf.constant([[0.0], [3], [0]], x.dtype), b
            ),
        ),
        row(
            "tf.linalg.tridiagonal_solve (no pivoting)",
            _M,
            (3, 2),
            call=lambda x, b: tf.linalg.tridiagonal_solve(
                x + tf.constant([[0.0], [3], [0]], x.dtype), b, partial_pivoting=False
            ),
        ),
        row(
            "tf.linalg.banded_triangular_solve",
            (2, 3),
            (3, 2),
            points=_BOTH,
            call=lambda x, b: tf.linalg.banded_triangular_solve(
                x + tf.constant([[3.0], [0]], x.dtype), b
            ),
        ),
        row(
            "tf.linalg.banded_triangular_solve (upper, adjoint)",
            (2, 3),
            (3, 2),
            points=_BOTH,
            call=lambda x, b: tf.linalg.banded_triangular_solve(
                x + tf.constant([[0.0], [3]], x.dtype), b, lower=False, adjoint=True
            ),
        ),
        row(
            "tf.linalg.experimental.conjugate_gradient",
            _M,
            (3,),
            call=lambda x, b: (
                tf.linalg.experimental.conjugate_gradient(
                    tf.linalg.LinearOperatorFullMatrix(
                        definite(x), is_self_adjoint=True, is_positive_definite=True
                    ),
                    b,
                    max_iter=5,
                ).x
            ),
        ),
    ]


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
