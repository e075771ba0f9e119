"""Products of matrices, their factors, and solutions of systems."""

import tensorflow as tf

from derivatives.rows import (
    POSITIVE,
    SMOOTH,
    ZEROS,
    resolve,
    row,
    rows,
)

_BOTH = ("smooth", "complex")

_M = (3, 3)


def table():
    return [*_products(), *_factors(), *_solutions()]


def symmetric(x):
    """Its symmetric (Hermitian) part, so that each direction is one in these."""
    return (x + tf.linalg.adjoint(x)) / 2


def definite(x):
    """A positive definite matrix: x xᴴ + 1."""
    return tf.matmul(x, x, adjoint_b=True) + tf.eye(3, dtype=x.dtype)


def regular(x):
    """Far from singular."""
    return x + 2 * tf.eye(3, dtype=x.dtype)


def of(name, wrap, function=None, points=_BOTH, case=None, **keywords):
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
        of("tf.linalg.det", regular, points=(*_BOTH, "identity")),
        row("tf.linalg.det (singular)", _M, points=("zeros", "ties")),
        row(
            "tf.linalg.det (rank 2)",
            (3, 2),
            call=lambda x: tf.linalg.det(tf.matmul(x, x, transpose_b=True)),
        ),
        row("tf.linalg.det (batch)", (2, 2, 2), points=_BOTH),
        of("tf.linalg.slogdet", regular, case=None, points=(*_BOTH, "identity")),
        row(
            "tf.linalg.slogdet (negative)",
            _M,
            points=SMOOTH,
            call=lambda x: tf.linalg.slogdet(-regular(x)),
        ),
        of("tf.linalg.logdet", definite, points=(*_BOTH, "zeros")),
        of("tf.linalg.cholesky", definite, points=(*_BOTH, "zeros")),
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
        of("tf.linalg.inv", regular, points=(*_BOTH, "zeros", "identity")),
        row(
            "tf.linalg.inv (adjoint)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.inv(regular(x), adjoint=True),
        ),
        of("tf.linalg.pinv", regular, points=SMOOTH),
        row("tf.linalg.pinv (tall)", (3, 2), points=SMOOTH),
        row("tf.linalg.pinv (wide)", (2, 3), points=SMOOTH),
        row("tf.linalg.pinv (identity)", _M, points=("identity",)),
        of("tf.linalg.sqrtm", definite, points=(*_BOTH, "zeros")),
        row(
            "tf.linalg.sqrtm (not symmetric)",
            _M,
            points=_BOTH,
            call=lambda x: tf.linalg.sqrtm(2 * regular(x)),
        ),
        of("tf.linalg.expm", lambda x: x, points=(*_BOTH, "zeros", "identity")),
        row(
            "tf.linalg.logm",
            _M,
            points=("complex",),
            call=lambda x: tf.linalg.logm(regular(x)),
        ),
        row("tf.linalg.matrix_rank", _M, points=SMOOTH),
    ]


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
