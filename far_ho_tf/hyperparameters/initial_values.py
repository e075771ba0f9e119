"""Initial weights with learned scales."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import Number, Variable
from far_ho_tf.checks import check_count, require
from far_ho_tf.variables.identity import dtype_of, find, is_variable, path_of
from far_ho_tf.variables.numbers import check_numbers, is_function, value_of


def scaled_noise(
    scales: Sequence[tuple[Variable | keras.layers.Layer, Number]],
    seed: int = 0,
    fresh: bool = False,
) -> list[tuple[Variable, Callable[..., tf.Tensor]]]:
    """Initial values w_0 = scale × normal noise, for `BilevelProblem`.

    Args:
        scales: List of pairs (variable or layer, scale): the scale is a number, a
            `Hyperparameter`, or a callable() -> tensor that may read some, such as
            `lambda: tf.exp(log_scale)`. A layer stands for all of its trainable
            variables.
        seed: Integer. The noise of each variable depends on it and on the
            variable's place in the list only.
        fresh: Whether each hyper-iteration draws noise of its own, so that scales
            do not fit themselves to one draw. Otherwise it stays the same.

    Returns:
        List of pairs (variable, callable), the `initial_values` of a
        `BilevelProblem`.

    Raises:
        ValueError: If a pair is malformed, or a variable has two.

    Example:

    >>> import far_ho_tf as far, keras
    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> scale = far.Hyperparameter(0.1, name="scale", constraint="non_neg")
    >>> values = far.scaled_noise([(layer.kernel, scale)], seed=1)
    >>> values[0][0] is layer.kernel, values[0][1]().shape
    (True, TensorShape([3, 2]))

    Source: Maclaurin et al. 2015, section 3.1 (initialization scales).
    """
    seed = check_count("seed", seed, low=0, high=2**63 - 1)
    require(
        isinstance(scales, (list, tuple)),
        "`scales` must be a list of pairs (variable or layer, scale).",
        scales=scales,
    )
    require(isinstance(fresh, bool), "`fresh` must be a boolean.", fresh=fresh)
    pairs = [
        (variable, scale) for pair in scales for variable, scale in _variables(pair)
    ]
    variables = [variable for variable, _ in pairs]
    for index, variable in enumerate(variables):
        require(
            find(variable, variables) == index,
            "`scales` must name each variable once.",
            twice=path_of(variable),
        )
    make = _fresh if fresh else _fixed
    return [
        (variable, make(variable, scale, (seed, index)))
        for index, (variable, scale) in enumerate(pairs)
    ]


def _variables(pair: Any) -> list[tuple[Variable, Number]]:
    require(
        isinstance(pair, (list, tuple)) and len(pair) == 2,
        "`scales` must be a list of pairs (variable or layer, scale).",
        element=pair,
    )
    owner, scale = pair
    owned = [owner] if is_variable(owner) else getattr(owner, "trainable_variables", [])
    require(owned, "A pair of `scales` names nothing that is trained.", owner=owner)
    checked = [(variable, check_numbers(_label(variable), scale)) for variable in owned]
    for variable in owned:
        if not is_function(scale):
            _factor(variable, scale)  # Says what is wrong with it.
    return checked


def _fixed(
    variable: Variable, scale: Number, seed: tuple[int, int]
) -> Callable[[], tf.Tensor]:
    noise = _noise(variable, seed)
    return lambda: _scaled(variable, scale, noise)


def _fresh(
    variable: Variable, scale: Number, seed: tuple[int, int]
) -> Callable[[tf.Tensor], tf.Tensor]:
    fold_in = tf.random.experimental.stateless_fold_in  # pyright: ignore[reportAttributeAccessIssue]
    return lambda hyper_iteration: _scaled(
        variable, scale, _noise(variable, fold_in(seed, hyper_iteration))
    )


def _noise(variable: Variable, seed: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """Normal noise, the same in a graph, under XLA, and in either precision.

    By inversion of random integers: of floats XLA draws others than TensorFlow.
    """
    bits = tf.random.stateless_uniform(
        variable.shape,  # pyright: ignore[reportArgumentType]
        seed,
        None,  # pyright: ignore[reportArgumentType]
        None,
        tf.int32,
        alg="philox",
    )
    uniform = (tf.cast(bits, tf.float64) + 0.5) * 2.0**-31
    normal = math.sqrt(2.0) * tf.math.erfinv(uniform)
    return tf.cast(normal, dtype_of(variable))


def _scaled(variable: Variable, scale: Number, noise: tf.Tensor) -> tf.Tensor:
    return _factor(variable, scale) * noise


def _factor(variable: Variable, scale: Number) -> tf.Tensor:
    factor = value_of(_label(variable), scale, dtype_of(variable))
    require(
        factor.shape.rank == 0 or factor.shape == variable.shape,
        f"{_label(variable)} must be a scalar, or of its shape.",
        shape=tuple(factor.shape),
    )
    require(
        factor.dtype == dtype_of(variable),
        f"{_label(variable)} must have its dtype, {dtype_of(variable).name}.",
        dtype=factor.dtype.name,
    )
    return factor


def _label(variable: Variable) -> str:
    return f"The scale of `{path_of(variable)}`"
