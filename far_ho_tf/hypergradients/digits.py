"""The digits that momenta destroy: when a buffer spills, and what it spilled."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from far_ho_tf.hypergradients import exact


class Plan(NamedTuple):
    """What is known of a run's momenta before its first step.

    Attributes:
        numerators, denominators: int64 tensors of shape (steps, variables).
        spills: Booleans of that shape: whether a buffer is spilled before a step.
        bounds: int64 vector: bounds on the buffers at the end.
        reversible: Scalar boolean: are all momenta positive and at most 1?
    """

    numerators: tf.Tensor
    denominators: tf.Tensor
    spills: tf.Tensor
    bounds: tf.Tensor
    reversible: tf.Tensor

    def ratios(self, step):
        """The momenta of a step, as `integers.kick` takes them."""
        return self.numerators[step], self.denominators[step]


def plan(momenta):
    """Momenta as ratios, and which buffers are spilled before which steps.

    By bounds on all elements of a buffer.

    Args:
        momenta: float64 tensor of shape (steps, variables).

    Returns:
        A `Plan`.
    """
    numerators, denominators = exact.ratio(momenta)
    reversible = tf.reduce_all((numerators > 0) & (momenta <= 1.0))
    # Where it is not, an error follows; no zero must be divided by until then.
    numerators = tf.maximum(numerators, 1)

    def follow(carry, ratio):
        bounds, _ = carry
        full = bounds >= exact.FULL
        bounds = tf.where(full, bounds // (1 << exact.SPILLED) + 1, bounds)
        return exact.next_bound(bounds, *ratio), full

    bounds, spills = tf.scan(
        follow,
        (numerators, denominators),
        (tf.ones_like(numerators[0]), tf.zeros_like(numerators[0], tf.bool)),
    )
    return Plan(numerators, denominators, spills, bounds[-1], reversible)


def arrays(plan, variables):
    """A `tf.TensorArray` for what the buffer of each variable spills."""
    counts = _counts(plan)
    return [
        tf.TensorArray(tf.int32, counts[index], element_shape=variable.shape)
        for index, variable in enumerate(variables)
    ]


def spill(flags, arrays, buffers, top):
    """Spills the buffers whose flags are set; `top` counts what each has spilled."""
    arrays, buffers = list(arrays), list(buffers)
    for index, buffer in enumerate(buffers):

        def push(index=index, buffer=buffer):
            spilled, rest = exact.spill(buffer)
            return arrays[index].write(top[index], spilled), rest

        arrays[index], buffers[index] = tf.cond(
            flags[index], push, lambda i=index, b=buffer: (arrays[i], b)
        )
    return arrays, buffers, top + tf.cast(flags, tf.int32)


def refill(flags, arrays, buffers, top):
    """Undoes `spill`; `top` is the number spilled."""
    top -= tf.cast(flags, tf.int32)
    buffers = [
        tf.cond(
            flags[index],
            lambda i=index, b=buffer: exact.refill(b, arrays[i].read(top[i])),
            lambda b=buffer: b,
        )
        for index, buffer in enumerate(buffers)
    ]
    return buffers, top


def bits(plan, variables):
    """Bits of buffer for each weight and step."""
    last = tf.math.log(tf.cast(plan.bounds, tf.float64)) / np.log(2.0)
    each = exact.SPILLED * tf.cast(_counts(plan), tf.float64) + last
    num_steps = plan.spills.shape[0]
    return mean_over_elements(each, variables) / num_steps


def mean_over_elements(values, variables):
    """The mean over all weights of what is one number for each variable."""
    sizes = tf.constant([v.shape.num_elements() for v in variables], tf.float64)
    return tf.tensordot(values, sizes, 1) / tf.reduce_sum(sizes)


def _counts(plan):
    return tf.reduce_sum(tf.cast(plan.spills, tf.int32), axis=0)
