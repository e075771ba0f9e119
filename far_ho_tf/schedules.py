"""Schedules of numbers over the steps of the inner training run."""

import math

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.variables import is_variable


class Schedule:
    """A number for each step, and for each layer if asked: a table of them.

    For every numeric argument of every `Dynamics`. The values may be a
    hyperparameter, and are then learned. Decays whose numbers may be learned:
    `Schedule.exponential`, `Schedule.cosine`, `Schedule.inverse_time`.

    Args:
        values: Variable, tensor or array of shape (T,): a value for each step; or
            of shape (T, L), for each of L layers.
        layers: List of length L, of layers, variables, or lists of these: what
            each column is for. `None` for values that all variables share.
        every: Integer, the number of steps that each value holds for.
        transform: Callable on tensors between the values and the numbers, such as
            `tf.exp` for values on a logarithmic scale, `tf.sigmoid` for logits.

    Attributes:
        layers: As given.

    Raises:
        ValueError: If shapes do not fit. While training, if steps go beyond the
            last value.

    Example:

    >>> import far_ho_tf as far
    >>> rates = far.Hyperparameter([0.5, 0.25, 0.125], name="rates")
    >>> schedule = far.Schedule(rates, every=2)
    >>> schedule.table(5).tolist()
    [0.5, 0.5, 0.25, 0.25, 0.125]
    >>> dynamics = far.Momentum(learning_rate=schedule, momentum=0.9)

    Source: Maclaurin et al. 2015, section 3.1 (schedules of learning rates).
    """

    def __init__(self, values, layers=None, every=1, transform=None):
        every = check_count("every", every)
        shape = _shape(values)
        expected = "(steps,)" if layers is None else f"(steps, {len(layers)})"
        require(
            len(shape) == (1 if layers is None else 2)
            and (layers is None or shape[1] == len(layers)),
            f"`values` of Schedule must be of shape {expected}.",
            shape=shape,
        )

        def value(step):
            row = tf.gather(_tensor(values), step // every)
            return row if transform is None else transform(row)

        self._define(value, layers)

    @classmethod
    def exponential(cls, initial, decay_steps, decay_rate, layers=None):
        r"""\(v_t = v_0\, r^{t/n}\), as `keras.optimizers.schedules.ExponentialDecay`.

        Args:
            initial: v_0: a number, a hyperparameter, or a vector with an element
                for each layer.
            decay_steps: n, of the same kinds.
            decay_rate: r, of the same kinds.
            layers: See `Schedule`.
        """
        return cls._decay(
            lambda t, v, n, r: v * r ** (t / n),
            layers,
            initial=initial,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
        )

    @classmethod
    def inverse_time(cls, initial, decay_steps, decay_rate, layers=None):
        r"""\(v_t = v_0 / (1 + r t/n)\), as Keras' `InverseTimeDecay`.

        Args:
            initial, decay_steps, decay_rate, layers: See `exponential`.
        """
        return cls._decay(
            lambda t, v, n, r: v / (1.0 + r * t / n),
            layers,
            initial=initial,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
        )

    @classmethod
    def cosine(cls, initial, decay_steps, alpha=0.0, layers=None):
        r"""From v_0 down to α v_0 along a cosine in n steps, as Keras' `CosineDecay`.

        \(v_t = v_0 (\alpha + (1-\alpha) \tfrac12 (1 + \cos(\pi \min(t/n, 1))))\)

        Args:
            initial: v_0; see `exponential`.
            decay_steps: n, of the same kinds.
            alpha: α, of the same kinds.
            layers: See `Schedule`.
        """

        def value(t, v, n, a):
            wave = 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(t / n, 1.0)))
            return v * (a + (1.0 - a) * wave)

        return cls._decay(
            value, layers, initial=initial, decay_steps=decay_steps, alpha=alpha
        )

    def __call__(self, step):
        """The number at a step, or a vector with one for each layer.

        Args:
            step: Scalar int32 tensor or integer, 0 for the first step.
        """
        return self._value(step)

    def table(self, num_steps):
        """All values as an array of shape (num_steps,) or (num_steps, L)."""
        steps = range(check_count("num_steps", num_steps))
        return np.stack([self(tf.constant(step)).numpy() for step in steps])

    def pairs(self):
        """What pairs of (variable or layer, value) say of it; needs `layers`."""
        return [
            (owner, self._column(index))
            for index, owners in enumerate(self.layers)
            for owner in (owners if isinstance(owners, (list, tuple)) else [owners])
        ]

    def _column(self, index):
        schedule = object.__new__(Schedule)
        schedule._define(lambda step: self(step)[index], None)
        return schedule

    def _define(self, value, layers):
        self._value = value
        self.layers = layers

    @classmethod
    def _decay(cls, function, layers, **numbers):
        for name, number in numbers.items():
            shape = _shape(number)
            require(
                shape == () or (layers is not None and shape == (len(layers),)),
                f"`{name}` must be a scalar, or hold one element for each of `layers`.",
                shape=shape,
                layers=layers,
            )
        tensors = [n for n in numbers.values() if is_variable(n) or tf.is_tensor(n)]

        def value(step):
            dtype = tensors[0].dtype if tensors else "float64"
            values = [tf.cast(_tensor(n), dtype) for n in numbers.values()]
            result = function(tf.cast(step, dtype), *values)
            return result if layers is None else tf.broadcast_to(result, [len(layers)])

        schedule = object.__new__(cls)
        schedule._define(value, layers)
        return schedule


def _tensor(value):
    if is_variable(value) or tf.is_tensor(value):
        return tf.convert_to_tensor(value)
    return tf.constant(np.asarray(value, "float64"))


def _shape(value):
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
