"""Small tools over TensorFlow's automatic differentiation."""

import tensorflow as tf


def dense(tensor):
    """Turns the `IndexedSlices` of an embedding or gather into a tensor.

    A gradient that is to be differentiated again must be dense.
    """
    if isinstance(tensor, tf.IndexedSlices):
        return tf.convert_to_tensor(tensor)
    return tensor


def vjp(tape, targets, sources, cotangents):
    """Vector–Jacobian products of what `tape` recorded.

    Args:
        tape: A `tf.GradientTape` that watched `sources`.
        targets: Structure of tensors.
        sources: Structure of tensors or `tf.Variable`s.
        cotangents: Structured as `targets`; a `None` stands for zero.

    Returns:
        Structured as `sources`: dense tensors, or `None` where no target with
        a cotangent depends on the source.
    """
    pairs = [
        (target, cotangent)
        for target, cotangent in zip(
            tf.nest.flatten(targets), tf.nest.flatten(cotangents), strict=True
        )
        if cotangent is not None
    ]
    flat = tf.nest.flatten(sources)
    gradients = [None] * len(flat)
    if pairs and flat:
        targets, cotangents = zip(*pairs, strict=True)
        gradients = tape.gradient(
            list(targets), flat, output_gradients=list(cotangents)
        )
    return tf.nest.pack_sequence_as(sources, [dense(g) for g in gradients])


def add(first, second):
    """Adds two lists of tensors, where `None` stands for zero."""
    return [
        b if a is None else a if b is None else a + b
        for a, b in zip(first, second, strict=True)
    ]


def zeros_for_none(tensors, like):
    """Replaces each `None` by zeros of the shape and dtype of its `like`."""

    def fill(tensor, other):
        if tensor is None:
            return tf.zeros_like(other)
        tensor.set_shape(other.shape)
        return tensor

    flat = [
        fill(tensor, other)
        for tensor, other in zip(
            tf.nest.flatten(tensors), tf.nest.flatten(like), strict=True
        )
    ]
    return tf.nest.pack_sequence_as(like, flat)


def all_finite(structure):
    """A scalar boolean: is every floating element of `structure` finite?"""
    flags = [
        tf.reduce_all(tf.math.is_finite(tensor))
        for tensor in tf.nest.flatten(structure)
        if tensor.dtype.is_floating
    ]
    return tf.reduce_all(tf.stack(flags)) if flags else tf.constant(True)


def safe_sqrt(x):
    """√x with the derivative 0, not infinity, at x = 0.

    For Adam and its kin √v is zero only where all gradients so far were
    zero, so that it multiplies a momentum of zero: the term with √v's
    derivative vanishes in the limit, where 0·∞ would be NaN.
    """
    positive = x > 0
    root = tf.sqrt(tf.where(positive, x, tf.ones_like(x)))
    return tf.where(positive, root, tf.zeros_like(x))
