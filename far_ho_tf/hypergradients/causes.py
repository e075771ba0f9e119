"""What makes NaN or infinity in a function: found by running it eagerly."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from far_ho_tf._types import Structure
from far_ho_tf.graphs.failures import told
from far_ho_tf.graphs.frames import where_now
from far_ho_tf.variables.derivatives import all_finite

# Beyond it, numbers are those of a run that diverges.
_DIVERGED = 1e6
# Operations that make infinity of numbers that are not large.
_GROWING = ("Cosh", "Exp", "Expm1", "Sinh")
_TOLD = (tf.float32, tf.float64, tf.complex64, tf.complex128)


def cause_of(function: Callable[[], Structure], batch: Structure, compiler: str) -> str:
    """What makes NaN or infinity in a function, found by running it eagerly.

    Args:
        function: Callable() -> a structure of tensors.
        batch: The data that it takes.
        compiler: "xla" or "graph", by which it came out so.

    Returns:
        A sentence; an empty string where nothing is found out.
    """
    if not bool(all_finite(batch)):
        return "The batch holds NaN or infinity."
    found = []

    def look(
        kind: str,
        inputs: Sequence[tf.Tensor],
        attributes: Any,
        outputs: Sequence[tf.Tensor],
        name: str | None = None,
        graph: tf.Graph | None = None,
    ) -> None:
        del attributes, name
        if graph is not None or found:
            return
        largest = _largest(inputs)
        if np.isfinite(largest) and not np.isfinite(_largest(outputs)):
            found.append(
                f"It is first made by {kind}{where_now()}, of numbers up to "
                f"{largest:.2g}. {_usual(kind, largest)}"
            )

    op_callbacks.add_op_callback(look)
    try:
        result = function()
    except Exception as error:
        own = error.__cause__ or error
        if not isinstance(own, tf.errors.OpError):
            return ""  # It cannot be run eagerly.
        return f"Run by itself, without XLA, it fails: {told(own)}."
    finally:
        op_callbacks.remove_op_callback(look)
    if found:
        return found[0]
    if compiler == "xla" and bool(all_finite(result)):
        return (
            "Without XLA the same is finite, as where a root or norm at zero has a "
            "derivative of XLA's own. Remedy: jit_compile=False, or sums of squares in "
            "the place of squared norms."
        )
    return ""


def _usual(kind: str, largest: float) -> str:
    if largest > _DIVERGED or kind in _GROWING:
        return "A usual cause: too large a learning rate."
    return (
        "Usual causes: a logarithm or division, or the derivative of a root or norm, "
        "at zero."
    )


def _largest(tensors: Iterable[tf.Tensor]) -> float:
    """The largest absolute value of the floating ones, NaN where there is one."""
    values = [np.abs(t.numpy()) for t in tensors if t.dtype in _TOLD]
    return max((np.max(value, initial=0.0) for value in values), key=_rank, default=0.0)


def _rank(value: float) -> float:
    return np.inf if np.isnan(value) else value
