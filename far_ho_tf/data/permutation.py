"""A pseudo-random permutation that is computed element by element."""

import math

import tensorflow as tf

_ROUNDS = 6
_GOLDEN = 0x9E3779B9


def permute(index: tf.Tensor, size: int, key: tf.Tensor) -> tf.Tensor:
    """Images of `index` under a permutation of 0 ... size − 1.

    Neither the permutation nor a part of it is ever stored, so batches of a
    shuffled epoch cost no memory and need no order of access; and unlike
    TensorFlow's `index_shuffle` and `stateless_shuffle` it compiles with XLA.

    A Feistel network over a × a ≥ size, whose images outside the range are
    permuted again until they fall inside (J. Black, P. Rogaway, "Ciphers with
    arbitrary finite domains", 2002). The round function is a 32-bit integer
    hash; it is made for shuffling, not for secrecy.

    Args:
        index: Integer tensor, with values in [0, size).
        size: Python integer, 1 <= size < 2**31.
        key: uint32 tensor that broadcasts to `index`; each key has its own
            permutation.

    Returns:
        int32 tensor of the shape of `index`.
    """
    side = tf.constant(math.isqrt(size - 1) + 1, tf.uint32)
    bound = tf.constant(size, tf.uint32)
    keys = [
        hash32(key + tf.constant(_GOLDEN * (turn + 1) % 2**32, tf.uint32))
        for turn in range(_ROUNDS)
    ]

    def encipher(value: tf.Tensor) -> tf.Tensor:
        left, right = value // side, value % side  # pyright: ignore[reportOperatorIssue]
        for turn_key in keys:
            left, right = right, (left + hash32(right + turn_key) % side) % side  # pyright: ignore[reportOperatorIssue]
        return left * side + right

    (image,) = tf.while_loop(
        lambda value: tf.reduce_any(value >= bound),
        lambda value: (tf.where(value >= bound, encipher(value), value),),
        (encipher(tf.cast(index, tf.uint32)),),
    )
    return tf.cast(image, tf.int32)


def hash32(value: tf.Tensor) -> tf.Tensor:
    """A mixing bijection of 32-bit integers.

    Source: C. Wellons' lowbias32, of hash-prospector (public domain).
    """
    for multiplier, shift in ((0x7FEB352D, 16), (0x846CA68B, 15)):
        value = _xor_shifted(value, shift) * tf.constant(multiplier, tf.uint32)
    return _xor_shifted(value, 16)


def _xor_shifted(value: tf.Tensor, shift: int) -> tf.Tensor:
    shifted = tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32))
    return tf.bitwise.bitwise_xor(value, shifted)
