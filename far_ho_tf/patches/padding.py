"""The derivative of what is padded with, which TensorFlow leaves out in silence."""

import functools

import tensorflow as tf

from far_ho_tf.patches.registry import REPLACED, derivative_of

# Whose last input it is.
_PADDING = (
    *("PadV2", "MatrixDiagV2", "MatrixDiagV3"),
    *("MatrixDiagPartV2", "MatrixDiagPartV3"),
)


def _with_padding(
    kind: str, operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor | None, ...]:
    """What does not come from the first input comes from the last one."""
    of_first, *others, _ = REPLACED[kind](operation, cotangent)
    return of_first, *others, tf.reduce_sum(cotangent) - tf.reduce_sum(of_first)


for _kind in _PADDING:
    derivative_of(_kind)(functools.partial(_with_padding, _kind))
