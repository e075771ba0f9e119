"""Steps of momentum descent in integers, forwards and backwards."""

from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.hypergradients import exact


class Integers(NamedTuple):
    """The state of `Momentum`, exactly: lists of int64 tensors.

    Attributes:
        variables, velocities: See `exact`.
        buffers: What the momentum destroyed, and was not spilled.
    """

    variables: list
    velocities: list
    buffers: list


def encoded(state):
    """A `State` of `Momentum`, with empty buffers."""
    velocities = [velocity for (velocity,) in state.slots]
    return Integers(
        [exact.encode(variable) for variable in state.variables],
        [exact.encode(velocity) for velocity in velocities],
        [tf.zeros(variable.shape, tf.int64) for variable in state.variables],
    )


def advance(integers, kicks, ratios, rates):
    """A step; and whether its result is within the range of the integers.

    Args:
        integers: `Integers`.
        kicks: List of int64 tensors, the gradients.
        ratios: Pair of int64 vectors, the momenta's numerators and denominators.
        rates: List of float64 tensors, the learning rates.
    """
    velocities, buffers = _multiply(integers, *ratios)
    velocities = [v + kick for v, kick in zip(velocities, kicks, strict=True)]
    variables = [
        w - drift
        for w, drift in zip(integers.variables, _drifts(velocities, rates), strict=True)
    ]
    integers = Integers(variables, velocities, buffers)
    return integers, in_range(integers)


def in_range(integers):
    """Scalar boolean: can a step from them be told exactly?"""
    return tf.reduce_all(
        [
            tf.reduce_all(tf.abs(tensor) < exact.RANGE)
            for tensor in integers.variables + integers.velocities
        ]
    )


def undo_drift(integers, rates):
    """The first half of a step back: the old weights, from the new velocity."""
    drifts = _drifts(integers.velocities, rates)
    return integers._replace(
        variables=[
            w + drift for w, drift in zip(integers.variables, drifts, strict=True)
        ]
    )


def undo_kick(integers, kicks, ratios):
    """Then the velocity is put back; the kick is that of the old weights."""
    velocities = [v - kick for v, kick in zip(integers.velocities, kicks, strict=True)]
    velocities, buffers = _multiply(
        integers._replace(velocities=velocities), *reversed(ratios)
    )
    return Integers(integers.variables, velocities, buffers)


def _drifts(velocities, rates):
    return [
        exact.encode(rate * exact.decode(velocity))
        for rate, velocity in zip(rates, velocities, strict=True)
    ]


def _multiply(integers, numerators, denominators):
    pairs = [
        exact.multiply(velocity, buffer, numerators[index], denominators[index])
        for index, (velocity, buffer) in enumerate(
            zip(integers.velocities, integers.buffers, strict=True)
        )
    ]
    return [velocity for velocity, _ in pairs], [buffer for _, buffer in pairs]
