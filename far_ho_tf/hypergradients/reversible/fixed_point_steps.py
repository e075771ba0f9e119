"""Steps of momentum descent in integers, forwards and backwards."""

from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.hypergradients.reversible import fixed_point
from far_ho_tf.variables.state import State


class Integers(NamedTuple):
    """The state of `Momentum`, exactly: lists of int64 tensors.

    Attributes:
        variables, velocities: See `exact`.
        buffers: What the momentum destroyed, and was not spilled.
    """

    variables: list[tf.Tensor]
    velocities: list[tf.Tensor]
    buffers: list[tf.Tensor]


def encoded(state: State, unit: float | tf.Tensor) -> Integers:
    """A `State` of `Momentum`, with empty buffers; `unit` is that of velocities."""
    velocities = [velocity for (velocity,) in state.slots]
    return Integers(
        [fixed_point.encode(variable) for variable in state.variables],
        [fixed_point.encode(velocity, unit) for velocity in velocities],
        [tf.zeros(variable.shape, tf.int64) for variable in state.variables],
    )


def kick(
    velocities: list[tf.Tensor],
    buffers: list[tf.Tensor],
    gradients: list[tf.Tensor],
    ratios: tuple[tf.Tensor, tf.Tensor],
    unit: float | tf.Tensor,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The first half of a step: v ← γ v + g.

    Args:
        velocities, buffers: As in `Integers`.
        gradients: List of floating tensors.
        ratios: Pair of int64 vectors, the momenta's numerators and denominators.
        unit: float64 scalar, that of velocities.

    Returns:
        New velocities and buffers.
    """
    velocities, buffers = _multiply(velocities, buffers, *ratios)
    kicks = [fixed_point.encode(gradient, unit) for gradient in gradients]
    return [v + g for v, g in zip(velocities, kicks, strict=True)], buffers


def undo_kick(
    velocities: list[tf.Tensor],
    buffers: list[tf.Tensor],
    gradients: list[tf.Tensor],
    ratios: tuple[tf.Tensor, tf.Tensor],
    unit: float | tf.Tensor,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Undoes `kick`."""
    kicks = [fixed_point.encode(gradient, unit) for gradient in gradients]
    velocities = [v - g for v, g in zip(velocities, kicks, strict=True)]
    return _multiply(velocities, buffers, *reversed(ratios))


def drift(
    variables: list[tf.Tensor],
    velocities: list[tf.Tensor],
    rates: list[tf.Tensor],
    unit: float | tf.Tensor,
) -> list[tf.Tensor]:
    """The second half: w ← w − η v, of lists; the rates η are float64 tensors."""
    drifts = _drifts(velocities, rates, unit)
    return [w - way for w, way in zip(variables, drifts, strict=True)]


def undo_drift(
    variables: list[tf.Tensor],
    velocities: list[tf.Tensor],
    rates: list[tf.Tensor],
    unit: float | tf.Tensor,
) -> list[tf.Tensor]:
    """Undoes `drift`."""
    drifts = _drifts(velocities, rates, unit)
    return [w + way for w, way in zip(variables, drifts, strict=True)]


def in_range(integers: Integers) -> tf.Tensor:
    """Scalar boolean: can a step from them be told exactly?

    Floats beyond all integers become the least or the largest of those.
    """
    return tf.reduce_all(
        [
            tf.reduce_all((tensor > -fixed_point.RANGE) & (tensor < fixed_point.RANGE))
            for tensor in integers.variables + integers.velocities
        ]
    )


def _drifts(
    velocities: list[tf.Tensor], rates: list[tf.Tensor], unit: float | tf.Tensor
) -> list[tf.Tensor]:
    return [
        fixed_point.encode(rate * fixed_point.decode(velocity, unit=unit))
        for rate, velocity in zip(rates, velocities, strict=True)
    ]


def _multiply(
    velocities: list[tf.Tensor],
    buffers: list[tf.Tensor],
    numerators: tf.Tensor,
    denominators: tf.Tensor,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    pairs = [
        fixed_point.multiply(velocity, buffer, numerators[index], denominators[index])
        for index, (velocity, buffer) in enumerate(
            zip(velocities, buffers, strict=True)
        )
    ]
    return [velocity for velocity, _ in pairs], [buffer for _, buffer in pairs]
