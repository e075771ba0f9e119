"""What the trained variables start from: the map Φ_0."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf

from far_ho_tf._types import TensorLike, Variable
from far_ho_tf.checks import require, shown, takes_argument
from far_ho_tf.graphs.failures import told
from far_ho_tf.variables.identity import dtype_of, find, is_variable, path_of
from far_ho_tf.variables.numbers import is_function, to_tensor

# What a variable may start from; see `initial_values` of `BilevelProblem`.
InitialValue: TypeAlias = TensorLike | Variable | Callable[..., TensorLike]


def initial_map(
    pairs: Sequence[tuple[Variable, InitialValue]], variables: list[Variable]
) -> list[tuple[int, InitialValue]]:
    """The map Φ_0, as checked pairs of a variable's index and what it starts from.

    Args:
        pairs: See `initial_values` of `BilevelProblem`.
        variables: List of the trained variables.
    """
    checked = []
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise ValueError(
                "`initial_values` must be a list of pairs (variable, "
                f"value). Received the element: {shown(pair)}"
            )
        variable, value = pair
        index = find(variable, variables)
        if index is None:
            name = path_of(variable) if is_variable(variable) else variable
            raise ValueError(
                "`initial_values` names a variable that is not among the "
                f"trained `variables`. Received: {shown(name)}"
            )
        if not callable(value):
            initial_value(variable, value)  # Says what is wrong with it.
        if any(index == other for other, _ in checked):
            raise ValueError(
                "`initial_values` must name each variable once. Received: "
                f"`{path_of(variable)}` twice"
            )
        checked.append((index, value))
    return checked


def initial_value(
    variable: Variable, source: InitialValue, outer_step: tf.Tensor | None = None
) -> tf.Tensor:
    """The value of a source as a tensor that fits its variable.

    Args:
        variable: The variable that starts from it.
        source: See `initial_values` of `BilevelProblem`.
        outer_step: The number of the hyper-iteration.
    """
    dtype = dtype_of(variable)
    try:
        value = source
        if is_function(source):
            value = source(outer_step) if takes_argument(source) else source()
        if value is not None:
            value = tf.identity(to_tensor(value, dtype))
    except Exception as error:
        raise ValueError(
            f"The initial value of `{path_of(variable)}` must be a hyperparameter, "
            "a tensor, an array, or a callable() or callable(step) that gives one. "
            f"Received: {shown(source)}, which fails with {told(error)}"
        ) from error
    shape = None if value is None else value.shape
    found = None if value is None else value.dtype.name
    require(
        shape == variable.shape and found == dtype.name,
        f"The initial value of `{path_of(variable)}` must have its shape, "
        f"{tuple(variable.shape)}, and dtype, {dtype.name}.",
        value=source,
        shape=shape,
        dtype=found,
    )
    return value  # pyright: ignore[reportReturnType]
