"""Variables of Keras and of TensorFlow: which is which, and their values."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import keras
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import (
    ResourceVariable,  # What tf.Variable makes outside of strategies.
)

from far_ho_tf._types import TensorLike, Variable

VARIABLES = (keras.Variable, tf.Variable)
_COMPOSITE = (
    *(tf.RaggedTensor, tf.RaggedTensorSpec, tf.SparseTensor, tf.SparseTensorSpec),
    tf.IndexedSlicesSpec,  # Of a tensor there is a dense one, which TensorFlow takes.
)


def is_variable(value: Any) -> TypeGuard[Variable]:
    """Whether it is a Keras variable or a bare tf.Variable."""
    return isinstance(value, VARIABLES)


def is_composite(value: Any) -> bool:
    """Whether it is a ragged or sparse tensor, or what a dataset says of such."""
    return isinstance(value, _COMPOSITE)


def path_of(variable: Variable) -> str:
    """The name by which messages and path patterns know a variable."""
    if isinstance(variable, keras.Variable):
        return variable.path
    return variable.name.removesuffix(":0")


def dtype_of(variable: Variable | tf.Tensor) -> tf.DType:
    """The dtype of a variable or tensor as a `tf.DType`."""
    return tf.as_dtype(variable.dtype)


def find(variable: Any, variables: Iterable[Any]) -> int | None:
    """The index of `variable` in a list, by identity; `None` if absent."""
    for index, other in enumerate(variables):
        if other is variable:
            return index
    return None


def assign(variables: Sequence[Variable], values: Sequence[TensorLike]) -> None:
    """Assigns each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        plain = _plain(variable)
        if plain is not None and _fits(value, plain):
            tf.raw_ops.AssignVariableOp(resource=plain.handle, value=value)
        else:
            variable.assign(value)


@contextlib.contextmanager
def preserved(variables: Sequence[Variable]) -> Iterator[None]:
    """Puts the values of variables back in the end."""
    values = read(variables)
    try:
        yield
    finally:
        assign(variables, values)


def _fits(value: Any, variable: ResourceVariable) -> bool:
    if not isinstance(value, tf.Tensor):
        return False
    return value.dtype == variable.dtype and value.shape == variable.shape


def read(variables: Iterable[Variable]) -> list[tf.Tensor]:
    """The variables' values as tensors: snapshots that later writes spare."""
    return [_read(variable) for variable in variables]


def _read(variable: Variable) -> tf.Tensor:
    plain = _plain(variable)
    if plain is None:
        return tf.identity(tf.convert_to_tensor(variable))
    return tf.raw_ops.ReadVariableOp(resource=plain.handle, dtype=plain.dtype)


def _plain(variable: Variable) -> ResourceVariable | None:
    """The `ResourceVariable` of one on one device, outside graphs; else `None`.

    Short runs spend much of their time on reading and assigning in TensorFlow's ways.
    """
    if not tf.executing_eagerly():
        return None
    if isinstance(variable, keras.Variable):
        variable = variable.value  # A tensor, where a scope replaces or casts it.
    return variable if type(variable) is ResourceVariable else None
