"""Eigenvalues and singular values, where some of them are equal; determinants.

Vectors that belong to equal values are not determined, nor are their derivatives, for
which TensorFlow takes zero. So it does with what the *second* derivatives of the values
need, though functions that treat the values alike (a determinant, a norm) are smooth
there: at the identity or an orthogonal matrix, with which training may start, they are
wrong in silence. What is not determined there can't be told from a gradient alone, so
that it is NaN, in derivatives of the run only, and gets the error that NaN gets.

The eigenvalues of `tf.linalg.eigh_tridiagonal` are found by bisection, and TensorFlow
differentiates that: they get the derivatives of those of `tf.linalg.eigh`.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.custom_gradients import are_true
from far_ho_tf.patches.registry import REPLACED, derivative_of, held, is_none
from far_ho_tf.patches.replacing import replace

_eigh_tridiagonal = tf.linalg.eigh_tridiagonal
# What messages call those that are NaN where something is not determined.
_DECOMPOSED = "a determinant or a decomposition"


def apply() -> None:
    """Puts it in the place of TensorFlow's."""
    replace(tf.linalg, "eigh_tridiagonal", eigh_tridiagonal)


def eigh_tridiagonal(
    alpha: TensorLike,
    beta: TensorLike,
    eigvals_only: bool = True,
    select: str = "a",
    *args: Any,
    **kwargs: Any,
) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
    """`tf.linalg.eigh_tridiagonal`, whose arguments and values these are."""
    alpha, beta = tf.convert_to_tensor(alpha), tf.convert_to_tensor(beta)
    with record.stop_recording():
        own = _eigh_tridiagonal(alpha, beta, eigvals_only, select, *args, **kwargs)
    lower = tf.linalg.diag(tf.math.conj(beta), k=-1)
    diagonal = tf.cast(tf.math.real(alpha), beta.dtype)
    values, vectors = tf.linalg.eigh(tf.linalg.set_diag(lower, diagonal))
    values = tf.math.real(values)
    own_values = own if eigvals_only else own[0]
    # Which of all they are: those from the one that is closest to the first.
    first = tf.argmin(tf.abs(values - own_values[0]), output_type=tf.int32)
    chosen = first + tf.range(tf.size(own_values))
    values = _as(own_values, tf.gather(values, chosen))
    if eigvals_only:
        return values
    vectors = tf.gather(vectors, chosen, axis=1)
    turn = held(tf.reduce_sum(tf.math.conj(vectors) * own[1], axis=0, keepdims=True))
    return values, _as(own[1], vectors * tf.sign(turn))


def _as(values: tf.Tensor, differentiable: tf.Tensor) -> tf.Tensor:
    """Values with the derivatives of others, which they equal."""
    return held(values) + (differentiable - held(differentiable))


@derivative_of("MatrixDeterminant")
def _determinant(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """ȳ · conj(c) · A⁻ᴴ, which is lost in rounding where c is.

    In derivatives of the run it is NaN there, where TensorFlow's inverse is of rounding
    alone, if it does not fail.
    """
    (matrix,), (value,) = operation.inputs, operation.outputs
    factor = cotangent * tf.math.conj(value)
    if are_true(_DECOMPOSED):
        bound = tf.reduce_prod(tf.norm(matrix, axis=-1), axis=-1)
        is_lost = tf.abs(value) <= _rounding(matrix.dtype) * tf.abs(bound)
        factor = tf.where(is_lost, tf.cast(np.nan, factor.dtype), factor)
    factor = factor[..., tf.newaxis, tf.newaxis]
    return factor * tf.linalg.inv(matrix, adjoint=True)


@derivative_of("SelfAdjointEigV2")
def _eigh(
    operation: tf.Operation, of_values: tf.Tensor, of_vectors: tf.Tensor
) -> tf.Tensor:
    """V (diag(λ̄) + F ∘ VᴴV̄) Vᴴ, with Fᵢⱼ = 1 / (λⱼ − λᵢ)."""
    if operation.get_attr("compute_v"):
        values, vectors = operation.outputs
        products = tf.linalg.matmul(vectors, of_vectors, adjoint_a=True)
        inner = _divided(products, values, of_vectors) + _of_phases(products)
    else:
        _, vectors = tf.linalg.eigh(operation.inputs[0])
        inner = 0.0
    inner = _diagonal(of_values) + inner
    gradient = vectors @ tf.linalg.matmul(inner, vectors, adjoint_b=True)
    # Only the lower triangle was read.
    gradient = tf.linalg.band_part(gradient + tf.linalg.adjoint(gradient), -1, 0)
    return tf.linalg.set_diag(gradient, tf.linalg.diag_part(gradient) / 2)


@derivative_of("Eig")
def _eig(
    operation: tf.Operation, of_values: tf.Tensor, of_vectors: tf.Tensor
) -> tf.Tensor:
    """TensorFlow's, where no phase of a vector matters and no values are equal."""
    gradient = REPLACED["Eig"](operation, of_values, of_vectors)
    if not operation.get_attr("compute_v"):
        return gradient
    values, vectors = operation.outputs
    products = tf.linalg.matmul(vectors, of_vectors, adjoint_a=True)
    lost = _of_phases(products)
    if are_true(_DECOMPOSED) and not is_none(of_vectors):
        # What functions of the values need cancels out where they are equal.
        lost += _lost_where(_are_equal(values), products)
    lost = tf.reduce_sum(tf.math.real(lost), axis=[-2, -1])
    return gradient + tf.cast(lost, gradient.dtype)[..., tf.newaxis, tf.newaxis]


@derivative_of("Svd")
def _svd(
    operation: tf.Operation,
    of_values: tf.Tensor,
    of_left: tf.Tensor,
    of_right: tf.Tensor,
) -> tf.Tensor:
    """U (diag(σ̄) + F) Vᴴ and what leaves the space of V.

    With Q = UᴴŪ − ŪᴴU and R = VᴴV̄ − V̄ᴴV, Fᵢⱼ is ½ (Qᵢⱼ + Rᵢⱼ) / (σⱼ − σᵢ)
    + ½ (Qᵢⱼ − Rᵢⱼ) / (σⱼ + σᵢ): what is not determined where σᵢ = σⱼ is the first. It
    is divided before the differences are taken, which are zero there.

    Source: J. Townsend 2016 ("Differentiating the singular value decomposition").
    """
    (matrix,) = operation.inputs
    of_values = _diagonal(of_values)
    if not operation.get_attr("compute_uv"):
        _, left, right = tf.linalg.svd(matrix)
        return left @ tf.linalg.matmul(of_values, right, adjoint_b=True)
    rows, columns = matrix.shape[-2:]
    if (
        rows is None
        or columns is None
        or (operation.get_attr("full_matrices") and rows != columns)
    ):
        return REPLACED["Svd"](operation, of_values, of_left, of_right)
    values, left, right = operation.outputs
    values = tf.cast(values, matrix.dtype)
    if rows > columns:
        left, right, of_left, of_right = right, left, of_right, of_left
    of_both = [
        tf.linalg.matmul(vectors, cotangent, adjoint_a=True)
        for vectors, cotangent in ((left, of_left), (right, of_right))
    ]
    q, r = (product - tf.linalg.adjoint(product) for product in of_both)
    sums = values[..., tf.newaxis, :] + values[..., tf.newaxis]
    turned = tf.math.divide_no_nan(q - r, sums)  # Their phases, too.
    divided = _divided(sum(of_both), values, of_left, of_right)
    inner = of_values + (divided + tf.linalg.adjoint(divided) + turned) / 2
    inner += _of_phases(sum(of_both))
    gradient = left @ tf.linalg.matmul(inner, right, adjoint_b=True)
    if rows != columns:
        beside = of_right - right @ tf.linalg.matmul(right, of_right, adjoint_a=True)
        inverse = tf.math.divide_no_nan(tf.ones_like(values), values)
        gradient += left @ (inverse[..., tf.newaxis] * tf.linalg.adjoint(beside))
    return tf.linalg.adjoint(gradient) if rows > columns else gradient


def _of_phases(products: tf.Tensor) -> tf.Tensor:
    """NaN where derivatives of the run would depend on the phases of complex vectors.

    These are a choice of the algorithm, which no derivative knows.
    """
    if not (products.dtype.is_complex and are_true(_DECOMPOSED)):
        return tf.zeros_like(products)
    phases = tf.math.imag(tf.linalg.diag_part(products))
    largest = tf.reduce_max(tf.abs(products), axis=[-2, -1])[..., tf.newaxis]
    counts = tf.abs(phases) > 1e3 * _rounding(products.dtype) * largest
    phases = tf.where(counts, phases, tf.zeros_like(phases))
    nan = tf.fill(tf.shape(phases), tf.cast(np.nan, phases.dtype))
    lost = tf.math.multiply_no_nan(nan, phases)
    return tf.linalg.diag(tf.cast(lost, products.dtype))


def _diagonal(of_values: tf.Tensor) -> tf.Tensor:
    """A matrix of cotangents of values that are real, also where they are complex."""
    return tf.linalg.diag(tf.cast(tf.math.real(of_values), of_values.dtype))


def _divided(
    products: tf.Tensor, values: tf.Tensor, *of_vectors: tf.Tensor
) -> tf.Tensor:
    """productsᵢⱼ / (λⱼ − λᵢ), zero on the diagonal and where the gap is zero.

    In derivatives of the run, NaN where values are equal, as far as rounding tells, but
    what is to be divided is not zero; or the matrix is, where all that is multiplied
    with values vanishes.
    """
    gaps = values[..., tf.newaxis, :] - values[..., tf.newaxis]
    inverse = tf.math.divide_no_nan(tf.ones_like(gaps), gaps)
    if not are_true(_DECOMPOSED):
        return tf.math.multiply_no_nan(tf.cast(inverse, products.dtype), products)
    equal = _are_equal(values)
    inverse = tf.where(equal, tf.cast(np.nan, gaps.dtype), inverse)
    divided = tf.math.multiply_no_nan(tf.cast(inverse, products.dtype), products)
    if all(is_none(one) for one in of_vectors):
        return divided
    return divided + _lost_where(
        equal & (tf.abs(values) == 0)[..., tf.newaxis], products
    )


def _are_equal(values: tf.Tensor) -> tf.Tensor:
    """Which pairs of values are, but for rounding, as a matrix."""
    gaps = tf.abs(values[..., tf.newaxis, :] - values[..., tf.newaxis])
    largest = tf.reduce_max(tf.abs(values), axis=-1)[..., tf.newaxis, tf.newaxis]
    itself = tf.zeros(tf.shape(values), tf.bool)
    return tf.linalg.set_diag(gaps <= _rounding(values.dtype) * largest, itself)


def _lost_where(places: tf.Tensor, products: tf.Tensor) -> tf.Tensor:
    """NaN there, in all derivatives, whatever the products are; elsewhere zero."""
    return tf.where(places, tf.cast(np.nan, products.dtype), 0) * products


def _rounding(dtype: tf.DType) -> float:
    """What is no number but rounding, beside what it was rounded from."""
    return 10.0 * np.finfo(dtype.as_numpy_dtype).eps
