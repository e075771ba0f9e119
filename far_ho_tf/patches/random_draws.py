"""Random draws for a part of a batch that are those for the whole batch.

Dropout draws a mask of the shape of what it is given. On a replica's shard of a
batch it would draw another mask than on the batch, so that a run would depend on the
number of replicas. Within `sharded_draws` it draws that of the batch and takes its
rows.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.patches.replacing import replaced

# With `None` for what is not known while tracing.
_Shape: TypeAlias = list[int | None]

_NAMES = (
    "stateless_normal",
    "stateless_truncated_normal",
    "stateless_uniform",
    "stateless_gamma",
    "stateless_binomial",
    "stateless_poisson",
)
_samplers = {name: getattr(tf.random, name) for name in _NAMES}
_categorical = tf.random.stateless_categorical
_dropout = tf.nn.experimental.stateless_dropout


@contextlib.contextmanager
def recorded_draws() -> Iterator[list[_Shape]]:
    """Within, draws are as ever, and their shapes are noted.

    Yields:
        List of shapes, as lists with `None` for what is not known while tracing.
    """
    record = _Record()
    with _in_place_of_tensorflow(record):
        yield record.shapes


@contextlib.contextmanager
def sharded_draws(
    size: int | tf.Tensor,
    first: tf.Tensor,
    total: int | tf.Tensor,
    shapes: Iterable[_Shape],
) -> Iterator[None]:
    """Within, draws for a shard of a batch are rows of those for the batch.

    Args:
        size: The number of examples of the shard: a Python integer or a tensor.
        first: Scalar int32 tensor, the place of the shard's first example.
        total: The number of examples of the batch: a Python integer or a tensor.
        shapes: Those of the draws for the whole batch, by which those that belong to
            the batch are known.

    Raises:
        ValueError: Of a draw whose shape depends on the batch in another way.
    """
    with _in_place_of_tensorflow(_Rows(size, first, total, shapes)):
        yield


def _in_place_of_tensorflow(
    draws: "_Record | _Rows",
) -> contextlib.AbstractContextManager[None]:
    """Keras' random layers and `keras.random` draw by TensorFlow's public functions,
    which are replaced for the time of a trace, in the whole process."""
    functions = {
        (tf.random, name): functools.partial(draws.sample, sampler)
        for name, sampler in _samplers.items()
    }
    functions[tf.random, "stateless_categorical"] = draws.categorical
    functions[tf.nn.experimental, "stateless_dropout"] = draws.dropout
    return replaced(functions)


class _Record:
    """Draws as TensorFlow does, and notes the shapes.

    Attributes:
        shapes: List of lists, an element for each draw.
    """

    def __init__(self) -> None:
        self.shapes = []

    def sample(
        self,
        sampler: Callable[..., tf.Tensor],
        shape: Any,
        *arguments: Any,
        **options: Any,
    ) -> tf.Tensor:
        self.shapes.append(_known(shape))
        return sampler(shape, *arguments, **options)

    def categorical(
        self,
        logits: tf.Tensor,
        num_samples: int | tf.Tensor,
        seed: Any,
        *arguments: Any,
        **options: Any,
    ) -> tf.Tensor:
        self.shapes.append(_known(tf.shape(logits)))
        return _categorical(logits, num_samples, seed, *arguments, **options)

    def dropout(
        self,
        x: tf.Tensor,
        rate: float | tf.Tensor,
        seed: Any,
        rng_alg: str = "auto_select",
        noise_shape: Any = None,
        name: str | None = None,
    ) -> tf.Tensor:
        shape = tf.shape(x) if noise_shape is None else noise_shape
        self.shapes.append(_known(shape))
        return _dropout(x, rate, seed, rng_alg, noise_shape, name)


class _Rows:
    """Draws for the whole batch, and takes a shard's rows."""

    def __init__(
        self,
        size: int | tf.Tensor,
        first: tf.Tensor,
        total: int | tf.Tensor,
        shapes: Iterable[_Shape],
    ) -> None:
        self._size = size
        self._first = first
        self._total = total
        self._shapes = iter(shapes)

    def sample(
        self,
        sampler: Callable[..., tf.Tensor],
        shape: Any,
        *arguments: Any,
        **options: Any,
    ) -> tf.Tensor:
        """A draw of a shape, by one of `_samplers`."""
        if not self._leads(_known(shape)):
            return sampler(shape, *arguments, **options)
        rest = tf.convert_to_tensor(shape, tf.int32)[1:]
        whole = tf.concat([[self._total], rest], 0)
        return self._cut(sampler(whole, *arguments, **options), shape[0])

    def categorical(
        self,
        logits: tf.Tensor,
        num_samples: int | tf.Tensor,
        seed: Any,
        *arguments: Any,
        **options: Any,
    ) -> tf.Tensor:
        """As TensorFlow's; each row has its own draws, by its place."""
        if not self._leads(_known(tf.shape(logits))):
            return _categorical(logits, num_samples, seed, *arguments, **options)
        after = self._total - self._first - self._size
        padded = tf.pad(logits, [[self._first, after], [0, 0]])
        whole = _categorical(padded, num_samples, seed, *arguments, **options)
        return self._cut(whole, tf.shape(logits)[0])

    def dropout(
        self,
        x: tf.Tensor,
        rate: float | tf.Tensor,
        seed: Any,
        rng_alg: str = "auto_select",
        noise_shape: Any = None,
        name: str | None = None,
    ) -> tf.Tensor:
        """As TensorFlow's, whose mask this draws in the same way."""
        with tf.name_scope(name or "stateless_dropout"):
            x = tf.convert_to_tensor(x)
            rate = tf.convert_to_tensor(rate, x.dtype)
            shape = tf.shape(x) if noise_shape is None else noise_shape
            shape = _known(shape)
            draw = functools.partial(
                _samplers["stateless_uniform"], seed=seed, dtype=x.dtype, alg=rng_alg
            )
            if self._leads(shape):
                rest = [tf.shape(x)[i] if n is None else n for i, n in enumerate(shape)]
                whole = draw(tf.stack([self._total, *rest[1:]]))
                kept = self._cut(whole, tf.shape(x)[0])
            else:
                kept = draw(tf.shape(x) if noise_shape is None else noise_shape)
            return tf.where(kept >= rate, x / (1 - rate), tf.zeros_like(x))

    def _leads(self, shape: _Shape) -> bool:
        """Whether the next draw's first axis counts the examples of the shard."""
        whole = next(self._shapes, None)
        if isinstance(self._size, int):
            depends = shape != whole
            leads = [self._size, self._total] == [*shape[:1], *(whole or [])[:1]]
        else:  # What is not known while tracing is what batches bring.
            depends = shape != whole or None in shape
            leads = bool(shape) and shape[0] is None
        require(
            not depends or (leads and whole is not None and shape[1:] == whole[1:]),
            "A random draw on a replica's shard of a batch must have the batch's first "
            "axis, or a shape that does not depend on the batch, so that it is that of "
            "one device.",
            on_the_share=shape,
            on_the_batch=whole,
        )
        return depends

    def _cut(self, whole: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
        checks = []
        if not isinstance(self._size, int):
            message = "The first axis of a random draw must be that of the batch."
            checks = [tf.debugging.assert_equal(rows, self._size, message)]
        with tf.control_dependencies(checks):
            return whole[self._first : self._first + self._size]


def _known(shape: Any) -> _Shape:
    """A shape as a list, `None` for what is not known while tracing.

    Args:
        shape: A `TensorShape`, a tensor, or a list of integers and scalar tensors.
    """
    # TensorFlow infers more of a tensor's shape than of a shape's elements.
    return tf.zeros(shape, tf.bool).shape.as_list()
