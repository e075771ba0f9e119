"""Numbers that a run reads: constants, variables, schedules and functions."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Number
from far_ho_tf.checks import require, shown
from far_ho_tf.graphs.failures import told
from far_ho_tf.variables.identity import is_variable, path_of

_FEW = 8  # Numbers of an array that are shown.


@functools.lru_cache(maxsize=1024)
def scalar(number: int) -> tf.Tensor:
    """A Python integer as an int32 scalar tensor."""
    with tf.init_scope():
        return tf.constant(number, tf.int32)


def is_number(source: Any) -> bool:
    """Whether a source is a plain number, or an array or tensor of such."""
    if isinstance(source, (np.ndarray, tf.Tensor)):
        dtype = tf.as_dtype(source.dtype) if source.dtype != object else tf.string
        return dtype.is_floating or dtype.is_integer
    return isinstance(source, numbers.Real) and not isinstance(source, bool)


def is_function(source: Any) -> TypeGuard[Callable[..., Any]]:
    """Whether a source has to be called for its value."""
    return callable(source) and not is_variable(source)


def check_numbers(label: str, value: Any) -> Any:
    """Returns plain numbers as an array, and other sources as they are.

    Raises:
        ValueError: If they are no finite numbers, or lists that are ragged.
    """
    if is_variable(value) or is_function(value) or tf.is_symbolic_tensor(value):
        return value
    try:
        array = np.asarray(value)
        plain = array.dtype.kind in "fiu" and bool(np.all(np.isfinite(array)))
    except ValueError:  # It is ragged.
        plain = False
    require(
        plain,
        f"{label} must be finite numbers, a Hyperparameter or a callable.",
        value=value,
    )
    return array


def text_of(source: Any) -> str:
    """A source as a `repr` shows it: a variable by its path, others as numbers."""
    if is_variable(source):
        return f"`{path_of(source)}`"
    is_plain = isinstance(source, np.ndarray) and source.size <= _FEW
    return shown(source.tolist() if is_plain else source)


def to_tensor(value: Any, dtype: tf.DType | str) -> tf.Tensor:
    """A variable's, tensor's or number's value; plain numbers in `dtype`.

    By NumPy, since tf.cast(0.1, "float64") rounds to float32 on the way.
    """
    if is_variable(value) or tf.is_tensor(value):
        return tf.convert_to_tensor(value)
    return tf.constant(np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype))


def value_of(label: str, source: Number, dtype: tf.DType | str) -> tf.Tensor:
    """The value of a source, now, as a tensor.

    Args:
        label: What messages call it.
        source: A number, an array, a variable, or a callable() -> one of these.
        dtype: That of plain numbers.

    Raises:
        ValueError: If it is none of these, or the callable fails.
    """
    try:
        value = source() if is_function(source) else source
        if value is None:
            raise TypeError("None for a number")
        return to_tensor(value, dtype)
    except Exception as error:
        raise ValueError(
            f"{label} must be a number, an array, a Hyperparameter, or a callable() "
            f"that gives one. Received: {shown(source)}, which fails with {told(error)}"
        ) from error
