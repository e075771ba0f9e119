"""Derivatives of complex numbers that lack a conjugate in TensorFlow.

The gradient of y = f(x) along a cotangent ȳ is ȳ · conj(f′(x)), and where f is no
analytic function, that of its real and imaginary parts.
"""

import tensorflow as tf

from far_ho_tf.patches.registry import REPLACED, Gradients, derivative_of, reduced


@derivative_of("LogMatrixDeterminant")
def _log_determinant(
    operation: tf.Operation, of_sign: tf.Tensor, of_logarithm: tf.Tensor
) -> tf.Tensor:
    """log|c| is real whatever its dtype, and c/|c| turns with the phase of c."""
    (matrix,) = operation.inputs
    factor = of_logarithm
    if matrix.dtype.is_complex:
        sign, _ = tf.linalg.slogdet(matrix)  # A tape does not keep it.
        turn = tf.math.imag(of_sign * tf.math.conj(sign))
        factor = tf.complex(tf.math.real(of_logarithm), turn)
    factor = factor[..., tf.newaxis, tf.newaxis]
    return factor * tf.linalg.inv(matrix, adjoint=True)


@derivative_of("MatrixSquareRoot")
def _square_root(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """X of RᴴX + XRᴴ = ȳ, as a system of equations in the elements of X."""
    (root,) = operation.outputs
    size = tf.shape(root)[-1]
    identity = tf.eye(size, dtype=root.dtype)
    adjoint = tf.linalg.adjoint(root)
    system = tf.einsum("...ik,jl->...ijkl", adjoint, identity)
    system += tf.einsum("ik,...lj->...ijkl", identity, adjoint)
    batch = tf.shape(root)[:-2]
    system = tf.reshape(system, tf.concat([batch, [size**2, size**2]], 0))
    flat = tf.reshape(cotangent, tf.concat([batch, [size**2, 1]], 0))
    return tf.reshape(tf.linalg.solve(system, flat), tf.shape(root))


@derivative_of("SquaredDifference")
def _squared_difference(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Of |x − y|², as TensorFlow computes it."""
    x, y = operation.inputs
    if x.dtype.is_complex:
        cotangent = tf.cast(tf.math.real(cotangent), x.dtype)
    of_x = 2 * cotangent * (x - y)
    return reduced(of_x, x), reduced(-of_x, y)


@derivative_of("MulNoNan")
def _multiply_no_nan(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    x, y = operation.inputs
    of_x = tf.math.multiply_no_nan(cotangent, tf.math.conj(y))
    of_y = tf.math.multiply_no_nan(tf.math.conj(x), cotangent)
    return reduced(of_x, x), reduced(of_y, y)


@derivative_of("EuclideanNorm")
def _euclidean_norm(operation: tf.Operation, cotangent: tf.Tensor) -> Gradients:
    """The norm is real whatever its dtype."""
    if cotangent.dtype.is_complex:
        cotangent = tf.cast(tf.math.real(cotangent), cotangent.dtype)
    return REPLACED["EuclideanNorm"](operation, cotangent)


@derivative_of("TridiagonalSolve")
def _tridiagonal_solve(
    operation: tf.Operation, cotangent: tf.Tensor
) -> list[tf.Tensor]:
    """ȳ · conj(f′(x)), of TensorFlow's ȳ · f′(x)."""
    found = REPLACED["TridiagonalSolve"](operation, tf.math.conj(cotangent))
    return [tf.math.conj(one) for one in found]
