"""A part of a problem on a line through its hyperparameters: values and slopes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.graphs import search
from far_ho_tf.patches.custom_gradients import true_derivatives
from far_ho_tf.problem.parts import Part
from far_ho_tf.variables.derivatives import dense, floating
from far_ho_tf.variables.identity import dtype_of, read
from far_ho_tf.variables.substitution import tape_sources

# What counts as no jump, beside the value: so many roundings of the coarsest dtype.
_NOISE = 80.0


class Point(NamedTuple):
    """A part at a place of the line.

    Attributes:
        value: The sum of what it makes, each element times a fixed number.
        slope: Its derivative along the line.
        steps: List of hashes of what the operations that make steps made.
    """

    value: float
    slope: float
    steps: list[int]


class Line:
    """A part as a function of a place on a line through its hyperparameters.

    Args:
        part: A `Part`.
        variables: List of the trained variables.
        hyperparameters: List of variables.
        forward: Callable as `part.forward`, whose results are looked at.

    Attributes:
        noise: What counts as nothing beside the value.
    """

    def __init__(
        self,
        part: Part,
        variables: list[Variable],
        hyperparameters: list[Variable],
        forward: Callable[..., Structure],
    ) -> None:
        self.hyperparameters = hyperparameters
        self._forward = forward
        self._data = part.example, tf.constant(0)
        self._values = [_moved(value) for value in read(variables)]
        self._start = read(hyperparameters)
        names = variables + hyperparameters
        specs = [tf.TensorSpec(one.shape, dtype_of(one)) for one in names]
        count = len(variables)
        self._function = tf.function(self._at, autograph=False).get_concrete_function(
            specs[:count],
            specs[count:],
            specs[count:],
            part.example,
            tf.TensorSpec([], tf.int32),
        )
        self.noise = _NOISE * search.coarsest(self._function.graph)

    def directions(self, group: list[int]) -> Iterator[list[tf.Tensor]]:
        """Outwards and inwards, along the hyperparameters of a group."""
        for is_outwards in (True, False):
            direction = [tf.zeros_like(value) for value in self._start]
            for index in group:
                direction[index] = self._direction(index, is_outwards)
            yield direction

    def _at(
        self,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        direction: list[tf.Tensor],
        prepared: Structure,
        step: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, list[list[tf.Tensor]]]:
        """The value, its derivative in a direction, and what made steps."""
        sources = tape_sources(self.hyperparameters, hyperparameters)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            made = self._forward(values, hyperparameters, prepared, step)
            # A plain sum may be constant, such as one of probabilities.
            value = tf.add_n(
                [
                    tf.cast(tf.reduce_sum(one * _weights(one)), values[0].dtype)
                    for one in floating(tf.nest.flatten(made))
                ]
            )
        steps = self.steps(hyperparameters)
        with true_derivatives():  # As hypergradients are made of.
            gradients = tape.gradient(value, sources)
        slope = tf.zeros_like(value)
        for gradient, one in zip(gradients, direction, strict=True):
            if gradient is not None:
                slope += tf.reduce_sum(dense(gradient) * one)
        return value, slope, steps

    def steps(self, hyperparameters: list[tf.Tensor]) -> list[list[tf.Tensor]]:
        """What makes steps in the graph so far: lists of tensors."""
        del hyperparameters
        return []

    def _direction(self, index: int, is_outwards: bool) -> tf.Tensor:
        """To a value of a hyperparameter that is well away, and one that it may have.

        Inwards just past zero: many numbers have no meaning below. Elements move by
        different lengths, so that an order of them changes.
        """
        variable, value = self.hyperparameters[index], self._start[index]
        sign = tf.where(value < 0, -tf.ones_like(value), tf.ones_like(value))
        outwards, inwards = value + sign, tf.where(value == 0, -sign, -1.001 * value)
        length = outwards if is_outwards else inwards
        if value.shape.rank:
            length *= _weights(value)
        end = value + length
        constraint = getattr(variable, "constraint", None)
        # Between two points of a convex set all are in it.
        return (end if constraint is None else constraint(end)) - value

    def moved(self, place: float, direction: list[tf.Tensor]) -> list[tf.Tensor]:
        """The hyperparameters at a place of a line."""
        return [
            value + tf.cast(place, value.dtype) * one
            for value, one in zip(self._start, direction, strict=True)
        ]

    def point(self, place: float, direction: list[tf.Tensor]) -> Point:
        """A `Point` there; NaN where nothing is defined."""
        moved = self.moved(place, direction)
        try:
            found = self._function(self._values, moved, direction, *self._data)
        except tf.errors.OpError:
            return Point(np.nan, np.nan, [])
        value, slope, made = found
        steps = [hash(b"".join(one.numpy().tobytes() for one in some)) for some in made]
        return Point(float(value), float(slope), steps)


def _moved(value: tf.Tensor) -> tf.Tensor:
    """Trained values that are not zero, whatever they start from.

    Where they are, what is multiplied with them has no influence.
    """
    random = _weights(value) - 1
    return tf.where(value == 0, 0.1 * random, value * (1 + 0.1 * random))


def _weights(tensor: tf.Tensor) -> tf.Tensor:
    """Numbers between 0.5 and 1.5, fixed by their places."""
    return tf.random.stateless_uniform(
        tf.shape(tensor), (1, 2), 0.5, 1.5, dtype=tensor.dtype
    )
