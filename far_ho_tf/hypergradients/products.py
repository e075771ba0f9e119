"""Small matrix products, in a form that XLA fuses."""

import contextlib

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops  # What tf.matmul's derivatives call.

# Multiplications up to which the sum is the faster on a CPU, before vectorization.
_SMALL = 4_000

_product = gen_math_ops.mat_mul


@contextlib.contextmanager
def fused_small_products():
    """Within, a matrix product of few multiplications is a sum over elementwise ones.

    XLA's products on a CPU each cost a call of a library, one to several microseconds,
    and more where a side is narrow; a sum of products goes into one loop with what
    surrounds it. Derivatives of such a product are again such sums.

    For the whole process, so that no other thread should trace meanwhile.
    """
    gen_math_ops.mat_mul = _fused
    try:
        yield
    finally:
        gen_math_ops.mat_mul = _product


def _fused(a, b, transpose_a=False, transpose_b=False, **options):
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    if not _is_small(a, b, transpose_b):
        return _product(a, b, transpose_a, transpose_b, **options)
    a = tf.transpose(a) if transpose_a else a
    b = tf.transpose(b) if transpose_b else b
    return tf.reduce_sum(a[:, :, tf.newaxis] * b, 1)


def _is_small(a, b, transpose_b):
    # Sums in half precision would lose digits that a product keeps.
    if a.dtype not in (tf.float32, tf.float64):
        return False
    if not (a.shape.is_fully_defined() and b.shape.is_fully_defined()):
        return False
    return a.shape.num_elements() * b.shape[0 if transpose_b else 1] <= _SMALL
