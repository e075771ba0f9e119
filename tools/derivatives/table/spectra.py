"""Eigenvalues, singular values and their vectors."""

import tensorflow as tf

from derivatives.rows import (
    SMOOTH,
    row,
)
from derivatives.table.matrices import of, symmetric

_BOTH = ("smooth", "complex")

_SPECTRA = ("smooth", "complex", "identity", "zeros")

_M = (3, 3)


def table():
    return [*_spectra()]


def _spectra():
    return [
        of("tf.linalg.eigh", symmetric, points=_SPECTRA),
        of(
            "tf.linalg.eigh",
            symmetric,
            case="values of it",
            points=_SPECTRA,
            function=lambda x: tf.linalg.eigh(x)[0],
        ),
        of(
            "tf.linalg.eigh",
            symmetric,
            points=_SPECTRA,
            case="the logarithm by it",
            function=_logarithm,
        ),
        of(
            "tf.linalg.eigh",
            symmetric,
            points=_SPECTRA,
            case="projection on one",
            function=_projection,
        ),
        of("tf.linalg.eigvalsh", symmetric, points=_SPECTRA),
        of(
            "tf.linalg.eigvalsh",
            symmetric,
            points=_SPECTRA,
            case="sum of exp",
            function=lambda x: tf.reduce_sum(tf.exp(tf.linalg.eigvalsh(x))),
        ),
        of(
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
