"""The digits that momenta destroy: when a buffer spills, and what it spilled."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from far_ho_tf.hypergradients.reversible import fixed_point


class Digits(NamedTuple):
    """What is known of a run's momenta before its first step.

    Attributes:
        numerators, denominators: int64 tensors of shape (steps, variables).
        spills: Booleans of that shape: whether a buffer is spilled before a step.
        bounds: int64 vector: bounds on the buffers at the end.
        lowest, highest: float64 scalars, among all momenta.
        reversible: Scalar boolean: can all of them be undone?
        deviation: float64 scalar, by how much of itself a velocity may differ, at most,
            because momenta are rounded to ratios.
    """

    numerators: tf.Tensor
    denominators: tf.Tensor
    spills: tf.Tensor
    bounds: tf.Tensor
    lowest: tf.Tensor
    highest: tf.Tensor
    reversible: tf.Tensor
    deviation: tf.Tensor

    @property
    def largest_denominator(self) -> tf.Tensor:
        """float64 scalar."""
        return tf.cast(tf.reduce_max(self.denominators), tf.float64)

    def ratios(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The momenta of a step, as `fixed_point_steps.kick` takes them."""
        return self.numerators[step], self.denominators[step]


def follow(momenta: tf.Tensor) -> Digits:
    """Momenta as ratios, and which buffers are spilled before which steps.

    By bounds on all elements of a buffer.

    Args:
        momenta: float64 tensor of shape (steps, variables).

    Returns:
        `Digits`.
    """
    numerators, denominators = fixed_point.ratio(momenta)
    reversible = tf.reduce_all((numerators > 0) & (momenta <= 1.0))
    steps = tf.cast(tf.shape(momenta)[0], tf.float64)
    off = tf.abs(tf.cast(numerators / denominators, tf.float64) - momenta)
    # A velocity remembers 1 / (1 − γ) steps.
    deviation = tf.reduce_max(off / tf.maximum(1.0 - momenta, 1.0 / steps))
    # Where it is not, an error follows; no zero must be divided by until then.
    numerators = tf.maximum(numerators, 1)

    def step(
        carry: tuple[tf.Tensor, tf.Tensor], ratio: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        bounds, _ = carry
        full = bounds >= fixed_point.FULL
        bounds = tf.where(full, bounds // (1 << fixed_point.SPILLED) + 1, bounds)
        return fixed_point.next_bound(bounds, *ratio), full

    bounds, spills = tf.scan(
        step,
        (numerators, denominators),
        (tf.ones_like(numerators[0]), tf.zeros_like(numerators[0], tf.bool)),
    )
    return Digits(
        numerators,
        denominators,
        spills,
        bounds[-1],
        tf.reduce_min(momenta),
        tf.reduce_max(momenta),
        reversible,
        deviation,
    )


def arrays(run: Digits, variables: Sequence[tf.Tensor]) -> list[tf.TensorArray]:
    """A `tf.TensorArray` for what the buffer of each variable spills."""
    counts = _counts(run)
    return [
        tf.TensorArray(tf.int32, counts[index], element_shape=variable.shape)
        for index, variable in enumerate(variables)
    ]


def spill(
    flags: tf.Tensor,
    arrays: Sequence[tf.TensorArray],
    buffers: Sequence[tf.Tensor],
    top: tf.Tensor,
) -> tuple[list[tf.TensorArray], list[tf.Tensor], tf.Tensor]:
    """Spills the buffers whose flags are set; `top` counts what each has spilled."""
    arrays, buffers = list(arrays), list(buffers)
    for index, buffer in enumerate(buffers):

        def push(
            index: int = index, buffer: tf.Tensor = buffer
        ) -> tuple[tf.TensorArray, tf.Tensor]:
            spilled, rest = fixed_point.spill(buffer)
            return arrays[index].write(top[index], spilled), rest

        arrays[index], buffers[index] = tf.cond(
            flags[index], push, lambda i=index, b=buffer: (arrays[i], b)
        )
    return arrays, buffers, top + tf.cast(flags, tf.int32)


def refill(
    flags: tf.Tensor,
    arrays: Sequence[tf.TensorArray],
    buffers: Sequence[tf.Tensor],
    top: tf.Tensor,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Undoes `spill`; `top` is the number spilled."""
    top -= tf.cast(flags, tf.int32)
    buffers = [
        tf.cond(
            flags[index],
            lambda i=index, b=buffer: fixed_point.refill(b, arrays[i].read(top[i])),
            lambda b=buffer: b,
        )
        for index, buffer in enumerate(buffers)
    ]
    return buffers, top


def bits(run: Digits, variables: Sequence[tf.Tensor]) -> tf.Tensor:
    """Bits of buffer for each weight and step."""
    last = tf.math.log(tf.cast(run.bounds, tf.float64)) / np.log(2.0)
    each = fixed_point.SPILLED * tf.cast(_counts(run), tf.float64) + last
    sizes = tf.constant([v.shape.num_elements() for v in variables], tf.float64)
    mean = tf.tensordot(each, sizes, 1) / tf.reduce_sum(sizes)
    return mean / tf.cast(tf.shape(run.spills)[0], tf.float64)


def _counts(run: Digits) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(run.spills, tf.int32), axis=0)
