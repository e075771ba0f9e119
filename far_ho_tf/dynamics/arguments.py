"""Numeric arguments of dynamics: one source of values per variable.

An argument is a number, a variable (a Hyperparameter), a callable of the step
(a schedule), or one of these per variable: a list of pairs
`[(variable or layer, value), ...]`, a mapping `{path pattern: value}`, or a
`Schedule` with layers.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from far_ho_tf._types import ConcreteFunction, Number, Variable
from far_ho_tf.checks import warn_user
from far_ho_tf.graphs.failures import told
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.variables.identity import dtype_of, find, is_variable, path_of
from far_ho_tf.variables.numbers import is_function, is_number, to_tensor

# A callable of the step.
Function: TypeAlias = Callable[[tf.Tensor], Any]
# Whose variables a value is for.
Owner: TypeAlias = Variable | keras.layers.Layer
# As a numeric argument is given.
Argument: TypeAlias = Number | Mapping[str, Number] | Sequence[tuple[Owner, Number]]

_FREE: Any = object()  # A variable that no pair or pattern has given a value yet.


class Bounds(NamedTuple):
    """The interval that a number must lie in.

    Attributes:
        low, high: Floats.
        brackets: Square where an end belongs to it, round where it does not.
    """

    low: float
    high: float = float("inf")
    brackets: str = "[)"

    def hold(self, number: ArrayLike) -> bool:
        """Whether all elements of a number or array lie in the interval."""
        number = np.asarray(number)
        left, right = self.brackets
        above = number >= self.low if left == "[" else number > self.low
        below = number <= self.high if right == "]" else number < self.high
        return bool(np.all(above & below))

    def __str__(self) -> str:
        return f"{self.brackets[0]}{self.low}, {self.high}{self.brackets[1]}"


def per_variable(
    name: str, argument: Argument, variables: list[Variable]
) -> list[Number]:
    """Resolves an argument into one source per variable.

    Args:
        name: The argument's name with its owner, for messages.
        argument: See the module's docstring.
        variables: List of the variables that the dynamics move.

    Returns:
        List aligned with `variables`, of numbers, variables and callables.

    Raises:
        ValueError: If a variable gets no value, or a pair or pattern matches
            no variable.
    """
    if isinstance(argument, Schedule) and argument.layers is not None:
        argument = argument.pairs()
    if isinstance(argument, Mapping):
        sources = _by_pattern(name, argument, variables)
    elif isinstance(argument, (list, tuple)):
        sources = _by_pair(name, argument, variables)
    else:
        sources = [argument] * len(variables)
    for source, variable in zip(sources, variables, strict=True):
        _check_source(name, source, variable)
    if any(isinstance(source, tf.Tensor) for source in sources):
        warn_user(
            f"{name} is a tensor, and so a constant, even where it was computed from a "
            "Hyperparameter. Remedy: a callable of the step, such as "
            "lambda step: 2 * rate; for what is to be a constant a number of Python's "
            "or NumPy's."
        )
    return sources


def value_at(
    name: str, source: Number, step: tf.Tensor, variable: tf.Tensor
) -> tf.Tensor:
    """The value of a source at a step, in the dtype of `variable`.

    What a callable returns is cast to it, since Keras' schedules compute in
    float32 whatever the dtype of the weights.

    Args:
        name: The argument's name with its owner, for messages.
        source: A number, a variable or a callable of the step.
        step: Scalar int32 tensor, 0 for the first step.
        variable: The tensor that is moved.

    Returns:
        A tensor that broadcasts to the variable's shape.
    """
    if is_variable(source):
        value = tf.convert_to_tensor(source)
    elif is_function(source):
        value = tf.cast(_call(name, source, step, variable), variable.dtype)
    else:
        value = tf.cast(to_tensor(source, variable.dtype), variable.dtype)
    if not _broadcasts_to(value.shape, variable.shape):
        raise ValueError(
            f"{name} must be a scalar or broadcast to the variable it moves, "
            f"of shape {variable.shape}. Received: a value of shape "
            f"{value.shape} from {describe(source)}"
        )
    return value


def trace_schedule(name: str, source: Function, dtype: tf.DType) -> ConcreteFunction:
    """A schedule as a concrete function of the step.

    Args:
        name: The argument's name with its owner, for messages.
        source: A callable of the step.
        dtype: That of the variables.
    """
    return tf.function(
        lambda step: _call(name, source, step, tf.zeros([], dtype)), autograph=False
    ).get_concrete_function(tf.TensorSpec([], tf.int32))


def _call(
    name: str, source: Function, step: tf.Tensor, variable: tf.Tensor
) -> tf.Tensor:
    """What a schedule returns; it may compute with integers or with floats."""
    try:
        try:
            value = source(step)
        except TypeError:  # Such as 0.9**step, which takes no integers.
            value = source(tf.cast(step, variable.dtype))
        if value is None:
            raise TypeError("None for a number")
        value = to_tensor(value, variable.dtype)
    except Exception as error:
        raise ValueError(
            f"{name} must be a callable that computes a number, by TensorFlow's or "
            "Keras' operations, from the step, a scalar int32 tensor. Received: "
            f"{describe(source)}, which fails with {told(error)}"
        ) from error
    return value


def describe(source: Number) -> str:
    """A source as messages name it."""
    if is_variable(source):
        return f"`{path_of(source)}`"
    return getattr(source, "__name__", None) or repr(source)


def _broadcasts_to(shape: tf.TensorShape, target: tf.TensorShape) -> bool:
    try:
        return tf.broadcast_static_shape(shape, target) == target
    except ValueError:
        return False


def _by_pattern(
    name: str, patterns: Mapping[str, Number], variables: list[Variable]
) -> list[Number]:
    sources = [_FREE] * len(variables)
    for pattern, source in patterns.items():
        try:
            found = [bool(re.search(pattern, path_of(v))) for v in variables]
        except (TypeError, re.error) as error:
            raise ValueError(
                f"{name}: the keys of a mapping must be regular expressions for "
                f"variables' paths. Received: {pattern!r} ({error})"
            ) from error
        matches = [index for index, matched in enumerate(found) if matched]
        if not matches:
            raise ValueError(
                f"{name}: the pattern {pattern!r} matches no variable. "
                f"Received variables: {_paths(variables)}"
            )
        if not _take(sources, matches, source) and pattern != ".*":
            raise ValueError(
                f"{name}: all variables that the pattern {pattern!r} matches have a "
                "value from a pattern before it, and the first that matches counts. "
                f"Received patterns: {list(patterns)}"
            )
    return _complete(name, sources, variables, "add the pattern '.*' last")


def _by_pair(
    name: str, pairs: Sequence[tuple[Owner, Number]], variables: list[Variable]
) -> list[Number]:
    sources = [_FREE] * len(variables)
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise ValueError(
                f"{name} must be a list of pairs (variable or layer, value). "
                f"Received the element: {pair!r}"
            )
        owner, source = pair
        owned = [owner] if is_variable(owner) else getattr(owner, "variables", [])
        matches = [find(variable, variables) for variable in owned]
        matches = [index for index in matches if index is not None]
        if not matches:
            raise ValueError(
                f"{name}: the pair with {_name(owner)} fits no variable that the "
                f"dynamics move. Received variables: {_paths(variables)}"
            )
        if not _take(sources, matches, source):
            raise ValueError(
                f"{name}: the pair with {_name(owner)} comes after pairs that give "
                "its variables a value already, and the first counts."
            )
    return _complete(name, sources, variables, "add a pair for each")


def _take(sources: list[Number], indices: list[int], source: Number) -> bool:
    """Gives the source to those that have none yet; says whether there are."""
    free = [index for index in indices if sources[index] is _FREE]
    for index in free:
        sources[index] = source
    return bool(free)


def _name(owner: Owner) -> str:
    return f"`{path_of(owner)}`" if is_variable(owner) else repr(owner)


def _complete(
    name: str, sources: list[Number], variables: list[Variable], remedy: str
) -> list[Number]:
    missing = [v for v, s in zip(variables, sources, strict=True) if s is _FREE]
    if missing:
        raise ValueError(
            f"{name} has no value for these variables: {_paths(missing)} ({remedy})"
        )
    return sources


def _check_source(name: str, source: Number, variable: Variable) -> None:
    dtype = (
        source.dtype if is_variable(source) or isinstance(source, Schedule) else None
    )
    if dtype is not None and tf.as_dtype(dtype) != dtype_of(variable):
        raise ValueError(
            f"{name} must have the dtype of the variable it moves, "
            f"`{path_of(variable)}` of {dtype_of(variable).name}. "
            f"Received: {describe(source)} of {tf.as_dtype(dtype).name}"
        )
    if isinstance(source, Schedule) and source.layers is not None:
        raise ValueError(
            f"{name}: a Schedule with `layers` says itself which variables its columns "
            f"are for, and cannot be the value of one. Received: {source!r}"
        )
    if not callable(source) and not is_variable(source) and not is_number(source):
        raise ValueError(
            f"{name} must be a number, a Hyperparameter, a callable of the step, "
            "or one of these per variable (a list of pairs or a mapping of path "
            f"patterns). Received: {source!r}"
        )


def _paths(variables: Iterable[Variable]) -> str:
    return ", ".join(f"`{path_of(variable)}`" for variable in variables)
