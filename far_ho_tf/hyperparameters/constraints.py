"""Sets that hyperparameters are kept in, as Keras constraints.

Each is an exact Euclidean projection, computed in float64 whatever the dtype
of the hyperparameter. A Keras optimizer applies the constraint of a variable
after every update.
"""

import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.checks import call_of, require

_PACKAGE = "far_ho_tf"


class _Shown(keras.constraints.Constraint):
    def __repr__(self) -> str:
        return call_of(self, **self.get_config())


@keras.saving.register_keras_serializable(_PACKAGE)
class Interval(_Shown):
    """Keeps each element in [low, high].

    Args:
        low, high: Floats, or arrays that broadcast to the variable; `None`
            leaves that side free.

    Raises:
        ValueError: If they are no numbers, or `low` is above `high`.

    Example:

    >>> import far_ho_tf as far
    >>> far.constraints.Interval(0.0, 1.0)([-1.0, 2.0, 0.5]).numpy().tolist()
    [0.0, 1.0, 0.5]
    """

    def __init__(
        self, low: TensorLike | None = None, high: TensorLike | None = None
    ) -> None:
        self.low = _bounds("low", low)
        self.high = _bounds("high", high)
        if low is not None and high is not None:
            require(
                np.all(np.less_equal(self.low, self.high)),
                "`low` must not be above `high`.",
                low=low,
                high=high,
            )

    def __call__(self, w: TensorLike) -> tf.Tensor:
        w = tf.convert_to_tensor(w)
        if self.low is not None:
            w = tf.maximum(w, tf.convert_to_tensor(self.low, w.dtype))
        if self.high is not None:
            w = tf.minimum(w, tf.convert_to_tensor(self.high, w.dtype))
        return w

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(_PACKAGE)
class UnitSimplex(_Shown):
    """Keeps the vectors along `axis` on the unit simplex: λ ≥ 0, Σλ = 1.

    Args:
        axis: Integer, the axis along which elements sum to one, of a variable
            of rank one or more.

    Source: J. Duchi et al. 2008, figure 1.

    Example:

    >>> import far_ho_tf as far
    >>> far.constraints.UnitSimplex()([2.0, 1.5, -1.0]).numpy().tolist()
    [0.75, 0.25, 0.0]
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def __call__(self, w: TensorLike) -> tf.Tensor:
        w = tf.convert_to_tensor(w)
        rows = tf.experimental.numpy.moveaxis(w, self.axis, -1)
        rows = _project_simplex(tf.cast(rows, tf.float64), 1.0)
        return tf.experimental.numpy.moveaxis(tf.cast(rows, w.dtype), -1, self.axis)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


@keras.saving.register_keras_serializable(_PACKAGE)
class L1Ball(_Shown):
    """Keeps the whole tensor, of any shape, in the ball Σ|λ| ≤ radius.

    Args:
        radius: Positive float.

    Raises:
        ValueError: If `radius` is not positive.

    Source: J. Duchi et al. 2008, "Efficient projections onto the ℓ1-ball".

    Example:

    >>> import far_ho_tf as far
    >>> far.constraints.L1Ball(1.0)([2.0, -1.5, 0.1]).numpy().tolist()
    [0.75, -0.25, 0.0]
    """

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = _number("radius", radius)
        require(radius > 0, "`radius` must be positive.", radius=radius)

    def __call__(self, w: TensorLike) -> tf.Tensor:
        w = tf.convert_to_tensor(w)
        flat = tf.cast(tf.reshape(w, [-1]), tf.float64)
        size = tf.abs(flat)
        inside = tf.reduce_sum(size) <= self.radius
        on_sphere = tf.sign(flat) * _project_simplex(size, self.radius)
        flat = tf.where(inside, flat, on_sphere)
        return tf.cast(tf.reshape(flat, tf.shape(w)), w.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"radius": self.radius}


@keras.saving.register_keras_serializable(_PACKAGE)
class CappedSimplex(_Shown):
    """Keeps the whole tensor in {0 ≤ λ ≤ upper, Σλ ≤ total}.

    The set of example weights in Franceschi et al. 2017, section 5.1 (data
    hyper-cleaning), where their code called a quadratic-programming solver.

    Args:
        total: Non-negative float, the bound on the sum.
        upper: Positive float, the bound on each element.

    Raises:
        ValueError: If `total` or `upper` is out of its range.

    Example:

    >>> import far_ho_tf as far
    >>> far.constraints.CappedSimplex(1.5)([2.0, 1.0, 0.5]).numpy().tolist()
    [1.0, 0.5, 0.0]
    """

    def __init__(self, total: float, upper: float = 1.0) -> None:
        self.total = _number("total", total)
        self.upper = _number("upper", upper)
        require(total >= 0, "`total` must not be negative.", total=total)
        require(upper > 0, "`upper` must be positive.", upper=upper)

    def __call__(self, w: TensorLike) -> tf.Tensor:
        w = tf.convert_to_tensor(w)
        flat = tf.cast(tf.reshape(w, [-1]), tf.float64)
        box = tf.clip_by_value(flat, 0.0, self.upper)
        flat -= tf.reduce_max(flat)  # Changes nothing, keeps huge values exact.
        shift = _capped_simplex_shift(flat, self.total, self.upper)
        shifted = tf.clip_by_value(flat - shift, 0.0, self.upper)
        flat = tf.where(tf.reduce_sum(box) <= self.total, box, shifted)
        return tf.cast(tf.reshape(flat, tf.shape(w)), w.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"total": self.total, "upper": self.upper}


def _bounds(name: str, value: TensorLike | None) -> Any:
    """Plain numbers and lists, so that Keras can save them."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
        plain = array.dtype.kind in "fiu" and not np.any(np.isnan(array))
    except ValueError:  # It is ragged.
        plain = False
    require(
        plain, f"`{name}` must be a number, an array of them or None.", **{name: value}
    )
    return array.tolist()


def _number(name: str, value: Any) -> Any:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    require(
        real and not math.isnan(value), f"`{name}` must be a number.", **{name: value}
    )
    return value


def _project_simplex(rows: tf.Tensor, total: float) -> tf.Tensor:
    """Projects the last axis on {λ ≥ 0, Σλ = total} (by sorting)."""
    # A common shift changes nothing, and keeps huge values exact.
    rows -= tf.reduce_max(rows, axis=-1, keepdims=True)
    ordered = tf.sort(rows, axis=-1, direction="DESCENDING")
    excess = tf.cumsum(ordered, axis=-1) - total
    count = tf.range(1, tf.shape(rows)[-1] + 1)
    kept = ordered * tf.cast(count, rows.dtype) > excess
    last = tf.reduce_sum(tf.cast(kept, tf.int32), axis=-1, keepdims=True)
    shift = tf.gather(excess, last - 1, axis=-1, batch_dims=rows.shape.rank - 1)
    return tf.maximum(rows - shift / tf.cast(last, rows.dtype), 0.0)


def _capped_simplex_shift(flat: tf.Tensor, total: float, upper: float) -> tf.Tensor:
    """The shift θ at which Σ clip(λ − θ, 0, upper) = total.

    The sum is a decreasing, piecewise linear function of θ whose slope
    changes by −1 at each λ_i − upper and by +1 at each λ_i; its values at
    these breakpoints follow by summation, and θ by interpolation.
    """
    one = tf.ones_like(flat)
    breakpoints = tf.concat([flat - upper, flat], axis=0)
    order = tf.argsort(breakpoints)
    breakpoints = tf.gather(breakpoints, order)
    slopes = tf.cumsum(tf.gather(tf.concat([-one, one], axis=0), order))
    drops = slopes[:-1] * (breakpoints[1:] - breakpoints[:-1])
    # Summed from the right, where the sum is zero, to lose nothing near it.
    sums = tf.concat(
        [-tf.cumsum(drops, reverse=True), tf.zeros([1], flat.dtype)], axis=0
    )
    # The last breakpoint at which the sum is still at or above the total.
    left = tf.reduce_sum(tf.cast(sums >= total, tf.int32)) - 1
    left = tf.clip_by_value(left, 0, tf.size(breakpoints) - 1)
    slope = tf.gather(slopes, left)
    surplus = tf.gather(sums, left) - total
    return tf.gather(breakpoints, left) + tf.math.divide_no_nan(surplus, -slope)
