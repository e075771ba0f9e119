"""Kernel rewrites: operations as they are fast on a CPU, under XLA and without.

And those that TensorFlow's own kernels for a CPU cannot do in others.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import (  # What TensorFlow's derivatives call.
    gen_math_ops,
    gen_nn_ops,
)

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.replacing import replaced

# By measurement (docs/decisions/0050-kernel-rewrites.md), before vectorization:
# multiplications up to which a product is slower than a sum over elementwise ones,
_SMALL_PRODUCT = 4_000
# elements from which sums along rows are slower than a product with ones, and the
# length of the rows.
_LARGE_SUM, _SHORTEST_ROW, _LONGEST_ROW = 4_000, 32, 1_024

# Without XLA, a transposed product is the slower from so many rows and columns, where
# the other factor has at most so many.
_MANY_ROWS, _MANY_COLUMNS, _FEW_COLUMNS = 1_000, 100, 10

_PLACES = (
    (gen_math_ops, "mat_mul"),
    (gen_math_ops, "_sum"),
    (gen_math_ops, "batch_mat_mul_v2"),
    (gen_nn_ops, "max_pool_grad_grad"),
    (gen_nn_ops, "conv2d"),
    (gen_nn_ops, "conv3d"),
)
_OWN = _product, _sum, _products, _pooling, _conv2d, _conv3d = [
    getattr(*place) for place in _PLACES
]


def beside_gpu() -> bool:
    """Whether there is a GPU: what was measured on a CPU says nothing then."""
    return bool(tf.config.list_logical_devices("GPU"))


def kernel_rewrites(xla: bool) -> contextlib.AbstractContextManager[None]:
    """Those for XLA, or for TensorFlow's own kernels; beside a GPU, none."""
    if beside_gpu():
        return contextlib.nullcontext()
    return xla_rewrites() if xla else tensorflow_rewrites()


def xla_rewrites() -> contextlib.AbstractContextManager[None]:
    """Within, small matrix products are elementwise, and large sums are products.

    XLA's products on a CPU each cost a call of a library, one to several microseconds,
    and more where a side is narrow; a sum over elementwise products goes into one loop
    with what surrounds it. Its sums along rows, or of all elements, are neither
    vectorized nor spread over threads, as products are. Derivatives are rewritten, too.

    For the whole process, so that no other thread should trace meanwhile.
    """
    return _instead(
        _product_for_xla, _sum_for_xla, _products, _pooling, _conv2d, _conv3d
    )


def tensorflow_rewrites() -> contextlib.AbstractContextManager[None]:
    """Within, operations as TensorFlow's own kernels are fast.

    Xᵀe for a large X and a narrow e is (eᵀX)ᵀ; many inner products are sums over
    elementwise ones; what comes through the derivative of max pooling is a mean over
    windows of what their largest elements get. Convolutions that a CPU has no kernels
    for, which Keras has XLA compile, are made of others. Derivatives are rewritten,
    too.

    For the whole process, as `xla_rewrites`.
    """
    return _instead(
        *(_product_for_kernels, _sum, _products_for_kernels, _pooling_for_kernels),
        *(_convolution_for_kernels(own) for own in (_conv2d, _conv3d)),
    )


def no_kernel_rewrites() -> contextlib.AbstractContextManager[None]:
    """Within, none, such as where products are counted."""
    return _instead(*_OWN)


def _instead(
    *rewrites: Callable[..., tf.Tensor],
) -> contextlib.AbstractContextManager[None]:
    return replaced(dict(zip(_PLACES, rewrites, strict=True)))


def _product_for_kernels(
    a: TensorLike,
    b: TensorLike,
    transpose_a: bool = False,
    transpose_b: bool = False,
    **options: Any,
) -> tf.Tensor:
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    if transpose_a and not transpose_b and _is_known(a) and _is_known(b):
        rows, columns = a.shape
        large = rows >= _MANY_ROWS and columns >= _MANY_COLUMNS
        if large and b.shape[1] <= _FEW_COLUMNS:
            return tf.transpose(_product(b, a, transpose_a=True, **options))
    return _product(a, b, transpose_a, transpose_b, **options)


def _products_for_kernels(
    x: TensorLike,
    y: TensorLike,
    adj_x: bool = False,
    adj_y: bool = False,
    **options: Any,
) -> tf.Tensor:
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    if not (_is_known(x) and _is_known(y)) or adj_x or adj_y:
        return _products(x, y, adj_x, adj_y, **options)
    *batch, columns, one = y.shape
    if one != 1 or x.shape != (*batch, 1, columns):  # Else all pairs would be made.
        return _products(x, y, **options)
    return _sum(x * tf.reshape(y, x.shape), -1, keep_dims=True)


def _pooling_for_kernels(
    x: tf.Tensor,
    y: tf.Tensor,
    grad: tf.Tensor,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    **options: Any,
) -> tf.Tensor:
    how = ksize, strides, padding
    if not (_is_known(x) and _are_apart(x.shape, ksize, strides)):
        return _pooling(x, y, grad, *how, **options)
    largest = gen_nn_ops.max_pool_grad(x, y, tf.ones_like(y), *how, **options)
    return gen_nn_ops.avg_pool(grad * largest, *how, **options) * math.prod(ksize)


def _are_apart(
    shape: tf.TensorShape, ksize: Sequence[int], strides: Sequence[int]
) -> bool:
    """Whether windows do not overlap, and cover everything."""
    sizes = zip(shape, ksize, strides, strict=True)
    return all(k == s and n % s == 0 for n, k, s in sizes)


def _convolution_for_kernels(own: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A convolution by groups or of channels first, as others of channels last.

    In float32, oneDNN has kernels for them, but for groups in three dimensions.
    """
    signature = inspect.signature(own)

    @functools.wraps(own)
    def convolve(*arguments: Any, **options: Any) -> tf.Tensor:
        given = signature.bind(*arguments, **options)
        given.apply_defaults()
        given = given.arguments
        x, kernel = map(tf.convert_to_tensor, (given["input"], given["filter"]))
        rank, layout = kernel.shape.rank, given["data_format"]
        channels_first = layout.startswith("NC")
        sizes = x.shape[1 if channels_first else -1], kernel.shape[-2]
        has_kernel = x.dtype == tf.float32 and (rank == 4 or sizes[0] == sizes[1])
        if has_kernel or None in sizes:
            return own(**given)
        last = [0, *range(2, rank), 1]
        if channels_first:
            x = tf.transpose(x, last)
            given["data_format"] = f"N{layout[2:]}C"
            pairs = np.reshape(given.get("explicit_paddings", []), (-1, 2))
            for name in ("strides", "dilations"):
                given[name] = [given[name][axis] for axis in last]
            if len(pairs):
                given["explicit_paddings"] = np.ravel(pairs[last]).tolist()
        groups = sizes[0] // sizes[1]
        given["name"] = None  # Which one operation alone may have.
        parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
        parts = [own(**given | {"input": one, "filter": of}) for one, of in parts]
        joined = tf.concat(parts, -1) if groups > 1 else parts[0]
        return tf.transpose(joined, np.argsort(last)) if channels_first else joined

    return convolve


def _product_for_xla(
    a: TensorLike,
    b: TensorLike,
    transpose_a: bool = False,
    transpose_b: bool = False,
    **options: Any,
) -> tf.Tensor:
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    if not (_is_known(a) and _is_known(b) and _is_elementwise(a, b, transpose_b)):
        return _product(a, b, transpose_a, transpose_b, **options)
    a = tf.transpose(a) if transpose_a else a
    b = tf.transpose(b) if transpose_b else b
    a.shape[1:].assert_is_compatible_with(b.shape[:1])  # Else one might be broadcast.
    return _sum(a[:, :, tf.newaxis] * b, 1)


def _is_elementwise(a: tf.Tensor, b: tf.Tensor, transpose_b: bool) -> bool:
    """Whether a product is small, or an outer one."""
    columns, length = b.shape if transpose_b else reversed(b.shape)
    return length == 1 or a.shape.num_elements() * columns <= _SMALL_PRODUCT


def _sum_for_xla(
    x: TensorLike, axis: TensorLike, keep_dims: bool = False, name: str | None = None
) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    # A list of tensors would be returned as it is.
    axes = tf.get_static_value(tf.convert_to_tensor(axis, dtype_hint=tf.int32))
    row = _row(x, axes) if axes is not None and _is_known(x) else 0
    if not row:
        return _sum(x, axis, keep_dims, name=name)
    sums = _product(tf.reshape(x, (-1, row)), tf.ones((row, 1), x.dtype))
    axes = np.ravel(axes) % x.shape.rank
    kept = [size for a, size in enumerate(x.shape) if a not in axes]
    sums = _sum(tf.reshape(sums, (*kept, -1)), -1)
    if keep_dims:
        sums = tf.reshape(sums, [1 if a in axes else n for a, n in enumerate(x.shape)])
    return sums


def _is_known(tensor: tf.Tensor) -> bool:
    # In half precision, results would differ by more than rounding.
    return tensor.dtype in (tf.float32, tf.float64) and tensor.shape.is_fully_defined()


def _row(x: tf.Tensor, axes: np.ndarray) -> int:
    """The length of the rows into which a sum is cut; 0: it stays as it is."""
    if x.shape.num_elements() < _LARGE_SUM:
        return 0
    axes = np.ravel(axes) % x.shape.rank
    long = [axis for axis, size in enumerate(x.shape) if size > 1]
    summed = [axis for axis in long if axis in axes]
    if not summed or long[-len(summed) :] != summed:  # Not the last ones.
        return 0
    size = math.prod(x.shape[axis] for axis in summed)
    longest = max(row for row in range(1, _LONGEST_ROW + 1) if size % row == 0)
    return longest if longest >= _SHORTEST_ROW else 0
