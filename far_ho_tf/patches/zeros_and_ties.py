"""Smooth functions that are written by parts which are not smooth at zeros and ties.

There TensorFlow and Keras add one-sided derivatives up, or lose them, and training
starts just there: at blank images, zero weights, equal scores. Written another way, the
values are the same, to the bit (but for |z|² of complex numbers and logaddexp2 of
tf.experimental.numpy, to rounding), and the derivatives are right. Those of registered
operations are TensorFlow's but at the points that it gets wrong.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf
from keras.src.backend.common import dtypes
from keras.src.backend.tensorflow import nn
from keras.src.backend.tensorflow import numpy as keras_numpy
from keras.src.backend.tensorflow.core import convert_to_tensor
from tensorflow.python.ops import gen_math_ops  # What all ways to multiply call.

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import derivative_of, held, reduced
from far_ho_tf.patches.replacing import replace

# Below which (πx)² has a series of four terms.
_SERIES = 1e-2
# What puts elements elsewhere, or leaves some out.
_MOVING = (
    *("ExpandDims", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "StridedSlice"),
    "Transpose",
)
# λα and λ of selu.
_SELU, _SELU_SCALE = 1.7580993408473768, 1.0507009873554805
# Keras' own, of which older releases lack some.
_celu = nn.celu
_hypot: Any
_sinc: Any
_logaddexp: Any
_logaddexp2: Any
_hypot, _sinc, _logaddexp, _logaddexp2 = (
    getattr(keras_numpy, name, None)
    for name in ("hypot", "sinc", "logaddexp", "logaddexp2")
)
_weighted_cross_entropy = tf.nn.weighted_cross_entropy_with_logits
_square, _power, _multiply = gen_math_ops.square, gen_math_ops._pow, gen_math_ops.mul


def celu(x: TensorLike, alpha: float | tf.Tensor = 1.0) -> tf.Tensor:
    """`keras.ops.celu`, whose derivative at 0 is 1."""
    x = tf.convert_to_tensor(x)
    positive = x > 0
    below = alpha * tf.math.expm1(tf.where(positive, tf.zeros_like(x), x) / alpha)
    return tf.where(positive, x, below)


def logaddexp(x1: TensorLike, x2: TensorLike) -> tf.Tensor:
    """`keras.ops.logaddexp`, symmetric in its derivatives too."""
    return _logaddexp_of(*_promoted(x1, x2), base=None)


def logaddexp2(x1: TensorLike, x2: TensorLike) -> tf.Tensor:
    """`keras.ops.logaddexp2`, in the same way."""
    return _logaddexp_of(*_promoted(x1, x2), base=2.0)


def numpy_logaddexp(x1: TensorLike, x2: TensorLike) -> tf.Tensor:
    """`tf.experimental.numpy.logaddexp`, in the same way."""
    return _logaddexp_of(*_promoted_by_numpy(x1, x2), base=None)


def numpy_logaddexp2(x1: TensorLike, x2: TensorLike) -> tf.Tensor:
    """`tf.experimental.numpy.logaddexp2`, in the same way."""
    return _logaddexp_of(*_promoted_by_numpy(x1, x2), base=2.0)


def hypot(x1: TensorLike, x2: TensorLike) -> tf.Tensor:
    """`keras.ops.hypot`, smooth but where both are zero."""
    x1, x2 = convert_to_tensor(x1), convert_to_tensor(x2)
    dtype = dtypes.result_type(x1.dtype, x2.dtype)
    if not tf.as_dtype(dtype).is_floating:
        return _hypot(x1, x2)
    x1, x2 = tf.cast(x1, dtype), tf.cast(x2, dtype)
    first = tf.abs(x1) >= tf.abs(x2)
    larger, smaller = tf.where(first, x1, x2), tf.where(first, x2, x1)
    ratio = tf.math.divide_no_nan(smaller, larger)
    return tf.abs(larger) * tf.sqrt(1.0 + tf.square(ratio))


def sinc(x: TensorLike) -> tf.Tensor:
    """`keras.ops.sinc`, whose derivatives near 0 are those of its series.

    There those of sin(πx) / πx are differences of large numbers, and NaN at 0.
    """
    x = convert_to_tensor(x)
    if not x.dtype.is_floating:
        return _sinc(x)
    y = tf.square(x * tf.constant(np.pi, x.dtype))
    small = y < _SERIES
    value = _sinc(tf.where(small, tf.ones_like(x), x))
    y = tf.where(small, y, tf.zeros_like(y))
    series = 1 - y / 6 * (1 - y / 20 * (1 - y / 42 * (1 - y / 72)))
    return tf.where(small, held(_sinc(x)) + (series - held(series)), value)


def weighted_cross_entropy_with_logits(
    labels: TensorLike,
    logits: TensorLike,
    pos_weight: TensorLike,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.nn.weighted_cross_entropy_with_logits`, smooth at logits of 0 too."""
    labels, logits = tf.convert_to_tensor(labels), tf.convert_to_tensor(logits)
    if not labels.shape.is_compatible_with(logits.shape):
        return _weighted_cross_entropy(labels, logits, pos_weight, name)
    with tf.name_scope(name or "logistic_loss"):
        negative, zeros = logits < 0, tf.zeros_like(logits)
        larger = tf.where(negative, -logits, zeros)
        difference = tf.where(negative, zeros, -logits) - larger
        weight = 1 + (pos_weight - 1) * labels
        loss = tf.math.log1p(tf.math.exp(difference)) + larger
        return (1 - labels) * logits + weight * loss


def square(x: TensorLike, name: str | None = None) -> tf.Tensor:
    """`tf.square`, with |x|² as what it is: x², or z z̄ of complex numbers."""
    squared = _square_of_absolute(x)
    return _square(x, name=name) if squared is None else squared


def power(x: TensorLike, y: TensorLike, name: str | None = None) -> tf.Tensor:
    """`tf.pow`, in the same way."""
    exponent = tf.get_static_value(y) if tf.is_tensor(x) else None
    if exponent is not None and np.ndim(exponent) == 0 and exponent == 2:
        squared = _square_of_absolute(x)
        if squared is not None:
            return squared
    return _power(x, y, name=name)


def multiply(x: TensorLike, y: TensorLike, name: str | None = None) -> tf.Tensor:
    """`tf.multiply`, in the same way."""
    argument = _absolute_of(x)
    is_same = x is y or (argument is not None and argument is _absolute_of(y))
    squared = _square_of_absolute(x) if is_same else None
    return _multiply(x, y, name=name) if squared is None else squared


def apply() -> None:
    """Puts them in the places of TensorFlow's and Keras' functions."""
    replace(nn, "celu", celu)
    for function in (hypot, sinc, logaddexp, logaddexp2):
        if hasattr(keras_numpy, function.__name__):
            replace(keras_numpy, function.__name__, function)
    replace(tf.experimental.numpy, "logaddexp", numpy_logaddexp)
    replace(tf.experimental.numpy, "logaddexp2", numpy_logaddexp2)
    name = "weighted_cross_entropy_with_logits"
    replace(tf.nn, name, weighted_cross_entropy_with_logits)
    for module in (gen_math_ops, tf, tf.math):
        replace(module, "square", square)
    replace(gen_math_ops, "_pow", power)
    replace(gen_math_ops, "mul", multiply)


def _square_of_absolute(x: TensorLike) -> tf.Tensor | None:
    """The square of an absolute value, moved or scaled since; else `None`."""
    squared, is_scaled = _smooth_square(x)
    if not is_scaled:
        return squared
    return held(_square(x)) + (squared - held(squared))  # The same to the bit.


def _smooth_square(x: TensorLike) -> tuple[tf.Tensor | None, bool]:
    """The same up to rounding, and whether it is scaled; `None` where it is not known.

    Only in graphs do tensors tell what they are.
    """
    argument = _absolute_of(x)
    if argument is not None:
        if not argument.dtype.is_complex:
            return _square(argument), False
        return _square(tf.math.real(argument)) + _square(tf.math.imag(argument)), False
    kind = x.op.type if _is_symbolic(x) else ""
    if kind in _MOVING:
        squared, is_scaled = _smooth_square(x.op.inputs[0])
        return None if squared is None else _moved(x.op, squared), is_scaled
    if kind in ("Mul", "RealDiv"):
        one, other = x.op.inputs
        squared, _ = _smooth_square(one)
        if squared is None and kind == "Mul":
            one, other = other, one
            squared, _ = _smooth_square(one)
        if squared is not None:
            factor = _square(other)
            scaled = _multiply(squared, factor) if kind == "Mul" else squared / factor
            return scaled, True
    return None, False


def _moved(operation: tf.Operation, tensor: tf.Tensor) -> tf.Tensor:
    """What an operation makes of another tensor than its first input."""
    function = getattr(tf.raw_ops, operation.type)
    names = [argument.name for argument in operation.op_def.input_arg]
    given = dict(zip(names, [tensor, *operation.inputs[1:]], strict=True))
    for attribute in operation.op_def.attr:
        if attribute.name in inspect.signature(function).parameters:
            given[attribute.name] = operation.get_attr(attribute.name)
    return function(**given)


def _absolute_of(x: TensorLike) -> tf.Tensor | None:
    """What a tensor is the absolute value of, else `None`."""
    if not _is_symbolic(x):
        return None
    return x.op.inputs[0] if x.op.type in ("Abs", "ComplexAbs") else None


def _is_symbolic(x: Any) -> TypeGuard[tf.Tensor]:
    return isinstance(x, tf.Tensor) and tf.is_symbolic_tensor(x)


def _promoted(x1: TensorLike, x2: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
    x1, x2 = convert_to_tensor(x1), convert_to_tensor(x2)
    dtype = dtypes.result_type(x1.dtype, x2.dtype, float)
    return tf.cast(x1, dtype), tf.cast(x2, dtype)


def _promoted_by_numpy(x1: TensorLike, x2: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
    dtype = tf.experimental.numpy.result_type(x1, x2, 0.0)
    return tf.cast(x1, dtype), tf.cast(x2, dtype)


def _logaddexp_of(x1: tf.Tensor, x2: tf.Tensor, base: float | None) -> tf.Tensor:
    """log(exp x1 + exp x2), by the larger of both and how far the other is from it."""
    first = x1 >= x2
    larger = tf.where(first, x1, x2)
    difference = tf.where(first, x2, x1) - larger
    undefined = tf.math.is_nan(difference)  # Of infinities, or NaN.
    difference = tf.where(undefined, tf.zeros_like(difference), difference)
    if base is None:
        more = tf.math.log1p(tf.math.exp(difference))
    else:
        log = tf.cast(tf.math.log(base), difference.dtype)
        more = tf.math.log1p(tf.math.exp(difference * log)) / log
    return tf.where(undefined, x1 + x2, larger + more)


@derivative_of("Selu")
def _selu(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """That of TensorFlow's kernel, which at 0 is another than XLA's."""
    (y,) = operation.outputs
    return tf.where(y < 0, cotangent * (y + _SELU), cotangent * _SELU_SCALE)


@derivative_of("BesselI1")
def _bessel_i1(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """I₀ − I₁/x, which is ½ at 0."""
    return _bessel_derivative(tf.math.special.bessel_i0, operation, cotangent)


@derivative_of("BesselJ1")
def _bessel_j1(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """J₀ − J₁/x, which is ½ at 0."""
    return _bessel_derivative(tf.math.special.bessel_j0, operation, cotangent)


def _bessel_derivative(
    of_order_zero: Callable[[tf.Tensor], tf.Tensor],
    operation: tf.Operation,
    cotangent: tf.Tensor,
) -> tf.Tensor:
    (x,), (y,) = operation.inputs, operation.outputs
    zero = tf.equal(x, 0)
    quotient = y / tf.where(zero, tf.ones_like(x), x)
    return cotangent * tf.where(
        zero, tf.constant(0.5, x.dtype), of_order_zero(x) - quotient
    )


@derivative_of("Xlogy")
def _xlogy(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return _of_product(operation, cotangent, tf.math.log, tf.math.xdivy)


@derivative_of("Xlog1py")
def _xlog1py(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    def of_second(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.math.xdivy(x, 1 + y)

    return _of_product(operation, cotangent, tf.math.log1p, of_second)


@derivative_of("Xdivy")
def _xdivy(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    def of_second(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.math.xdivy(-x, y * y)

    return _of_product(operation, cotangent, _inverse, of_second)


def _inverse(y: tf.Tensor) -> tf.Tensor:
    return 1 / y  # XLA forgets a conjugate in the derivative of tf.math.reciprocal.


def _of_product(
    operation: tf.Operation,
    cotangent: tf.Tensor,
    function: Callable[[tf.Tensor], tf.Tensor],
    of_second: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients of x · f(y), which is 0 at x = 0 even where f(y) is not finite.

    There, and only there, is f(y) not the derivative in x; TensorFlow says so of all
    y at x = 0.
    """
    x, y = operation.inputs
    x, y = x + tf.zeros_like(y), y + tf.zeros_like(x)  # Of one shape.
    counts = tf.not_equal(x, 0) | tf.math.is_finite(tf.abs(function(y)))
    value = function(tf.where(counts, y, tf.ones_like(y)))
    of_x = tf.where(counts, value, tf.zeros_like(y))
    of_x, of_y = (tf.math.conj(one) for one in (of_x, of_second(x, y)))
    first, second = operation.inputs
    return reduced(cotangent * of_x, first), reduced(cotangent * of_y, second)
