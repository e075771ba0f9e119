"""Indices out of range, which XLA passes over in silence.

TensorFlow's kernels for a CPU raise where a token is not in the vocabulary, or a label
in the table of weights; XLA reads the last row in its place, or writes nowhere. In
objectives that XLA compiles, what comes of it is NaN, and the run that finds out where
it comes from raises as TensorFlow does.
"""

import contextvars
import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_array_ops, gen_math_ops  # What all ways call.

from far_ho_tf._types import TensorLike
from far_ho_tf.contexts import having
from far_ho_tf.patches.replacing import replace

_is_compiled = contextvars.ContextVar("whether XLA compiles what is made")
_checks = contextvars.ContextVar("whether indices are looked at", default=False)

_gather, _gather_nd = gen_array_ops.gather_v2, gen_array_ops.gather_nd
_WRITING = {
    gen_array_ops: (
        "scatter_nd",
        *(f"tensor_scatter_{kind}" for kind in ("add", "max", "min", "sub", "update")),
    ),
    gen_math_ops: [
        f"unsorted_segment_{kind}" for kind in ("max", "min", "prod", "sum")
    ],
}


def compiled(flag: bool) -> AbstractContextManager[None]:
    """Within, what is made is compiled by XLA, or not."""
    return having(_is_compiled, flag)


def checked() -> AbstractContextManager[None]:
    """Within, indices are looked at where XLA compiles what is made of them."""
    return having(_checks, _is_compiled.get(False))


def gather(
    params: TensorLike,
    indices: TensorLike,
    axis: TensorLike,
    batch_dims: int = 0,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.gather`, which is NaN for indices that are out of range."""
    found = _gather(params, indices, axis, batch_dims, name)
    at = tf.get_static_value(axis)
    if not _counts(found) or at is None:
        return found
    params, indices = tf.convert_to_tensor(params), tf.convert_to_tensor(indices)
    if params.shape.rank is None or indices.shape.rank is None:
        return found
    at = int(at) % params.shape.rank
    bad = _are_out(indices, tf.shape(params, indices.dtype)[at])
    if bad is None:
        return found
    # Indices stand between the batch with the axes before `axis`, and those after.
    batch_dims %= indices.shape.rank + 1
    sizes = tf.shape(indices)
    ones = [
        tf.ones([n], tf.int32) for n in (at - batch_dims, params.shape.rank - at - 1)
    ]
    shape = [sizes[:batch_dims], ones[0], sizes[batch_dims:], ones[1]]
    return _without(tf.reshape(bad, tf.concat(shape, 0)), found)


def gather_nd(
    params: TensorLike, indices: TensorLike, *arguments: Any, **options: Any
) -> tf.Tensor:
    """`tf.gather_nd`, in the same way."""
    found = _gather_nd(params, indices, *arguments, **options)
    if not _counts(found):
        return found
    indices = tf.convert_to_tensor(indices)
    depth = indices.shape[-1]
    if depth is None or found.shape.rank is None or indices.shape.rank is None:
        return found
    bad = _are_out(indices, tf.shape(params, indices.dtype)[:depth])
    if bad is None:
        return found
    bad = tf.reduce_any(bad, -1)
    for _ in range(found.shape.rank - bad.shape.rank):
        bad = bad[..., tf.newaxis]
    return _without(bad, found)


def _writing(own: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """An operation that adds up, or writes, where integers tell, in the same way."""
    signature = inspect.signature(own)

    @functools.wraps(own)
    def write(*arguments: Any, **options: Any) -> tf.Tensor:
        found = own(*arguments, **options)
        if not _counts(found):
            return found
        given = signature.bind(*arguments, **options).arguments
        if "segment_ids" in given:
            indices, low = tf.convert_to_tensor(given["segment_ids"]), None
            limit = tf.cast(given["num_segments"], indices.dtype)
        else:
            indices, low = tf.convert_to_tensor(given["indices"]), 0
            depth = indices.shape[-1]
            if depth is None:
                return found
            limit = tf.shape(found, indices.dtype)[:depth]
        bad = _are_out(indices, limit, low)
        return found if bad is None else _without(tf.reduce_any(bad), found)

    return write


def apply() -> None:
    """Puts them in the places of TensorFlow's."""
    replace(gen_array_ops, "gather_v2", gather)
    replace(gen_array_ops, "gather_nd", gather_nd)
    for module, names in _WRITING.items():
        for name in names:
            own = getattr(module, name)
            writing = _writing(own)
            replace(module, name, writing)
            for public in (tf, tf.math):
                for alias in [a for a, value in vars(public).items() if value is own]:
                    replace(public, alias, writing)


def _counts(found: tf.Tensor) -> bool:
    return _checks.get() and (found.dtype.is_floating or found.dtype.is_complex)


def _are_out(
    indices: tf.Tensor, limit: tf.Tensor, low: int | None = 0
) -> tf.Tensor | None:
    """Which are out of range; `None` where it is known that none is.

    Args:
        indices: Tensor of integers.
        limit: What they must be below.
        low: What they must not be below; `None`: anything.
    """
    low = indices.dtype.min if low is None else low
    known, most = tf.get_static_value(indices), tf.get_static_value(limit)
    is_known = known is not None and most is not None
    if is_known and np.all((known >= low) & (known < most)):
        return None
    return (indices < low) | (indices >= limit)


def _without(bad: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    return tf.where(bad, tf.cast(np.nan, found.dtype), found)
