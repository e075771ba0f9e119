"""Roots and powers whose derivatives are finite where training starts."""

from contextlib import AbstractContextManager

import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.replacing import replaced

_sqrt = tf.sqrt


def safe_sqrt(x: TensorLike, name: str | None = None) -> tf.Tensor:
    """√x with the derivative 0, not infinity, at x = 0.

    For Adam and its kin √v is zero only where all gradients so far were
    zero, so that it multiplies a momentum of zero: the term with √v's
    derivative vanishes in the limit, where 0·∞ would be NaN.
    """
    del name  # As tf.sqrt has it.
    x = tf.convert_to_tensor(x)
    zero = x == 0  # NaN and negative numbers stay the errors that they are.
    root = _sqrt(tf.where(zero, tf.ones_like(x), x))
    return tf.where(zero, tf.zeros_like(x), root)


def power(base: TensorLike, exponent: TensorLike) -> tf.Tensor:
    """base^exponent, which is 1 and constant where the exponent is 0.

    TensorFlow's derivative in a base of 0 is 0·0⁻¹ = NaN there. That in the
    exponent is left out: it must be one that does not move away from 0.
    """
    zero = tf.equal(exponent, 0)
    result = tf.pow(base, tf.where(zero, tf.ones_like(exponent), exponent))
    return tf.where(zero, tf.ones_like(result), result)


def safe_roots() -> AbstractContextManager[None]:
    """Within, `tf.sqrt`, and so `keras.ops.sqrt`, is `safe_sqrt`.

    For the whole process, so that no other thread should trace meanwhile.
    """
    places = (tf, "sqrt"), (tf.math, "sqrt")
    # Steps that run eagerly are within, too, in any thread.
    return replaced(dict.fromkeys(places, safe_sqrt), dict.fromkeys(places, _sqrt))
