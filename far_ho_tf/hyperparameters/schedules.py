"""Schedules of numbers over the steps of the inner training run."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from far_ho_tf._types import ConcreteFunction, Variable
from far_ho_tf.checks import check_count, is_integer, require
from far_ho_tf.graphs.failures import told
from far_ho_tf.patches.safe_roots import power
from far_ho_tf.variables.identity import dtype_of, is_variable
from far_ho_tf.variables.numbers import check_numbers, text_of, to_tensor

# Where values come from.
_Source: TypeAlias = float | Sequence[Any] | np.ndarray | tf.Tensor | Variable


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
        num_steps: Integer, the steps that it has numbers for; `None` for any.
        dtype: The `tf.DType` of the variables that it reads; `None` without any.

    Raises:
        ValueError: If shapes do not fit, or values are no numbers. While training,
            if steps go beyond the last value.

    Example:

    >>> import far_ho_tf as far
    >>> rates = far.Hyperparameter([0.5, 0.25, 0.125], name="rates")
    >>> schedule = far.Schedule(rates, every=2)
    >>> schedule.table(5).tolist()
    [0.5, 0.5, 0.25, 0.25, 0.125]
    >>> dynamics = far.Momentum(learning_rate=schedule, momentum=0.9)

    Source: Maclaurin et al. 2015, section 3.1 (schedules of learning rates).
    """

    def __init__(
        self,
        values: _Source,
        layers: Sequence[Any] | None = None,
        every: int = 1,
        transform: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        every = check_count("every", every)
        columns = _count(layers)
        values = _source("values", values)
        shape: tuple[int, ...] = tuple(values.shape)  # pyright: ignore[reportAssignmentType]
        expected = "(steps,)" if layers is None else f"(steps, {columns})"
        require(
            len(shape) == (1 if layers is None else 2)
            and shape[0] > 0
            and (layers is None or shape[1] == columns),
            f"`values` of Schedule must be of shape {expected}.",
            shape=shape,
        )
        require(
            transform is None or callable(transform),
            "`transform` of Schedule must be a callable on tensors.",
            transform=transform,
        )

        def value(step: tf.Tensor) -> tf.Tensor:
            row = tf.gather(_floating(values), step // every)
            return row if transform is None else _transformed(transform, row)

        self._define(value, layers, "", {"values": values}, shape[0] * every, every)

    @classmethod
    def exponential(
        cls,
        initial: _Source,
        decay_steps: _Source,
        decay_rate: _Source,
        layers: Sequence[Any] | None = None,
    ) -> "Schedule":
        r"""\(v_t = v_0\, r^{t/n}\), as `keras.optimizers.schedules.ExponentialDecay`.

        Args:
            initial: v_0: a number, a hyperparameter, or a vector with an element
                for each layer.
            decay_steps: n, of the same kinds, positive.
            decay_rate: r, of the same kinds, not negative.
            layers: See `Schedule`.
        """
        return cls._decay(
            "exponential",
            lambda t, v, n, r: v * power(r, t / n),
            layers,
            initial=initial,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
        )

    @classmethod
    def inverse_time(
        cls,
        initial: _Source,
        decay_steps: _Source,
        decay_rate: _Source,
        layers: Sequence[Any] | None = None,
    ) -> "Schedule":
        r"""\(v_t = v_0 / (1 + r t/n)\), as Keras' `InverseTimeDecay`.

        Args:
            initial, decay_steps, decay_rate, layers: See `exponential`.
        """
        return cls._decay(
            "inverse_time",
            lambda t, v, n, r: v / (1.0 + r * t / n),
            layers,
            initial=initial,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
        )

    @classmethod
    def cosine(
        cls,
        initial: _Source,
        decay_steps: _Source,
        alpha: _Source = 0.0,
        layers: Sequence[Any] | None = None,
    ) -> "Schedule":
        r"""From v_0 down to α v_0 along a cosine in n steps, as Keras' `CosineDecay`.

        \(v_t = v_0 (\alpha + (1-\alpha) \tfrac12 (1 + \cos(\pi \min(t/n, 1))))\)

        Args:
            initial: v_0; see `exponential`.
            decay_steps: n, of the same kinds.
            alpha: α, of the same kinds.
            layers: See `Schedule`.
        """

        def value(t: tf.Tensor, v: tf.Tensor, n: tf.Tensor, a: tf.Tensor) -> tf.Tensor:
            wave = 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(t / n, 1.0)))
            return v * (a + (1.0 - a) * wave)

        return cls._decay(
            "cosine",
            value,
            layers,
            initial=initial,
            decay_steps=decay_steps,
            alpha=alpha,
        )

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The number at a step, or a vector with one for each layer.

        Args:
            step: Scalar int32 tensor or integer, 0 for the first step.
        """
        if is_integer(step):
            last = None if self.num_steps is None else self.num_steps - 1
            step = tf.constant(check_count("step", step, low=0, high=last))
        return self._value(step)  # pyright: ignore[reportArgumentType]

    def table(self, num_steps: int) -> np.ndarray:
        """All values as an array of shape (num_steps,) or (num_steps, L)."""
        steps = check_count("num_steps", num_steps, high=self.num_steps)
        return self._traced()(tf.range(steps)).numpy()

    def pairs(self) -> list[tuple[Any, "Schedule"]]:
        """What pairs of (variable or layer, value) say of it; needs `layers`."""
        return [
            (owner, self._column(index))
            for index, owners in enumerate(self.layers)  # pyright: ignore[reportArgumentType]
            for owner in (owners if isinstance(owners, (list, tuple)) else [owners])
        ]

    def constants(self) -> np.ndarray | None:
        """The numbers, as an array, of a schedule that reads no variable.

        Of a decay that at step 0; `None` for other schedules.
        """
        traced = self._traced()
        if traced.graph.variables:
            return None
        return traced(tf.range(0, self.num_steps or 1, self._every)).numpy()

    def _traced(self) -> ConcreteFunction:
        """The values at a vector of steps, as a concrete function."""

        def values(steps: tf.Tensor) -> tf.Tensor:
            dtype = self(steps[0]).dtype
            return tf.map_fn(self, steps, fn_output_signature=dtype)

        return tf.function(values, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.int32)
        )

    def __repr__(self) -> str:
        sources = [f"{name}={text_of(s)}" for name, s in self._sources.items()]
        return f"Schedule{self._kind}({', '.join(sources)})"

    def _column(self, index: int) -> "Schedule":
        schedule = object.__new__(Schedule)
        schedule._define(
            lambda step: self(step)[index],
            None,
            self._kind,
            self._sources,
            self.num_steps,
            self._every,
        )
        return schedule

    def _define(
        self,
        value: Callable[[tf.Tensor], tf.Tensor],
        layers: Sequence[Any] | None,
        kind: str,
        sources: Mapping[str, Any],
        num_steps: int | None = None,
        every: int = 1,
    ) -> None:
        self._value = value
        self._every = every
        self._kind = kind
        self._sources = sources
        self.layers = layers
        self.num_steps = num_steps
        dtypes = {dtype_of(s) for s in sources.values() if is_variable(s)}
        require(
            len(dtypes) < 2,
            "The hyperparameters of a Schedule must have one dtype.",
            dtypes=sorted(dtype.name for dtype in dtypes),
        )
        self.dtype = next(iter(dtypes), None)

    @classmethod
    def _decay(
        cls,
        kind: str,
        function: Callable[..., tf.Tensor],
        layers: Sequence[Any] | None,
        **numbers: _Source,
    ) -> "Schedule":
        columns = _count(layers)
        sources = {name: _source(name, number) for name, number in numbers.items()}
        for name, source in sources.items():
            shape = tuple(source.shape)
            require(
                shape == () or (layers is not None and shape == (columns,)),
                f"`{name}` must be a scalar, or hold one element for each of `layers`.",
                shape=shape,
                layers=layers,
            )
        _check_low("decay_steps", sources["decay_steps"], included=False)
        if "decay_rate" in sources:
            _check_low("decay_rate", sources["decay_rate"], included=True)
        schedule = object.__new__(cls)

        def value(step: tf.Tensor) -> tf.Tensor:
            values = [_floating(source) for source in sources.values()]
            dtype = schedule.dtype or values[0].dtype
            values = [tf.cast(value, dtype) for value in values]
            result = function(tf.cast(step, dtype), *values)
            return result if layers is None else tf.broadcast_to(result, [columns])

        schedule._define(value, layers, f".{kind}", sources)
        return schedule


def _count(layers: Any) -> int | None:
    """The number of columns that there are for `layers`."""
    require(
        layers is None or (isinstance(layers, (list, tuple)) and len(layers) > 0),
        "`layers` of Schedule must be a list of layers, variables, or lists of these.",
        layers=layers,
    )
    return layers and len(layers)  # pyright: ignore[reportReturnType]


def _source(name: str, value: _Source) -> np.ndarray | tf.Tensor | Variable:
    """Where values come from: a variable, a tensor, or an array of numbers."""
    label = f"`{name}` of Schedule"
    require(
        is_variable(value) or not callable(value),
        f"{label} must be numbers, a Hyperparameter or a tensor.",
        **{name: value},
    )
    return check_numbers(label, value)


def _floating(source: _Source) -> tf.Tensor:
    tensor = to_tensor(source, "float64")
    return tensor if tensor.dtype.is_floating else tf.cast(tensor, "float64")


def _transformed(
    transform: Callable[[tf.Tensor], tf.Tensor], row: tf.Tensor
) -> tf.Tensor:
    label = "`transform` of Schedule must be a callable that computes a tensor"
    try:
        result = transform(row)
    except Exception as error:
        raise ValueError(
            f"{label} from one of shape {tuple(row.shape)}. Received: {transform!r}, "
            f"which fails with {told(error)}"
        ) from error
    kept = tf.is_tensor(result) and (result.shape, result.dtype) == (
        row.shape,
        row.dtype,
    )
    require(kept, f"{label} of the same shape and dtype.", result=result)
    return result


def _check_low(name: str, source: Any, included: bool) -> None:
    """Refuses plain numbers that are negative, or zero unless it is `included`."""
    if not is_variable(source):
        fits = tf.reduce_all(source >= 0 if included else source > 0)
        sign = "not be negative" if included else "be positive"
        require(bool(fits), f"`{name}` of Schedule must {sign}.", **{name: source})
