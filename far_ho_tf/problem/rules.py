"""Rules of custom gradients where training and its derivative cannot be parted.

See `patches.custom_gradients`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.graphs.functions import once_traced
from far_ho_tf.patches.custom_gradients import Meeting, Met, true_derivatives
from far_ho_tf.variables.derivatives import (
    all_finite,
    dense,
    floating,
    vjp,
    zeros_for_none,
)

# How far custom gradients may be from the true ones: by rounding.
_RULES_AGREE = {tf.float64: 1e-9, tf.float32: 1e-4, tf.float16: 0.02, tf.bfloat16: 0.1}


def check(
    name: str,
    functions: list[str],
    call: Callable[..., tuple[Structure, Meeting]],
    inputs: tuple[Structure, ...],
) -> None:
    """Refuses custom gradients in loops and branches that are no derivatives.

    Args:
        name: Of the objective.
        functions: List of the names of the functions that have them.
        call: Callable(*inputs) -> the inner objective's gradients, or the outer one's
            value, and a `Meeting`.
        inputs: What it takes.
    """

    def gradients(*inputs: Structure) -> list[tf.Tensor]:
        if name == "inner_objective":
            found, _ = call(*inputs)
        else:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(inputs[0])
                value, _ = call(*inputs)
            found = [dense(gradient) for gradient in tape.gradient(value, inputs[0])]
        # One may go where the other leaves something out.
        return zeros_for_none(found, inputs[0][: len(found)])

    def both(*inputs: Structure) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        by_rules = gradients(*inputs)
        with true_derivatives():
            return by_rules, gradients(*inputs)

    pairs = zip(*once_traced(both)(*inputs), strict=True)
    for one, other in pairs:
        error, size = (float(tf.norm(tensor)) for tensor in (one - other, other))
        if not error <= _RULES_AGREE[one.dtype] * size:
            raise ValueError(
                f"`{name}` calls {' and '.join(sorted(set(functions)))} in a loop or "
                "branch, with a custom gradient that is not the function's derivative: "
                "TensorFlow goes by it in the training's own derivative, too, in "
                "silence. Remedy: call it outside of tf.while_loop, tf.scan, tf.map_fn "
                "and tf.cond, such as by a loop in Python, or by tf.where."
            )


def not_differentiable(
    call: Callable[..., tuple[Structure, Meeting]], inputs: tuple[Structure, ...]
) -> frozenset[Any]:
    """The code of functions whose true derivatives are not finite where they are.

    Such as of a root at zero: its custom gradient is then the derivative.

    Args:
        call: Callable(*inputs) that traces a part of a problem; returns what it makes,
            and a `Meeting`.
        inputs: What it takes.
    """
    codes = []

    def flags(*inputs: Structure) -> list[tf.Tensor]:
        _, met = call(*inputs, with_tape=True)
        codes[:] = [one.code for one in met.calls]
        return [_is_finite(met.tape, one) for one in met.calls]  # pyright: ignore[reportArgumentType]

    found = once_traced(flags)(*inputs)
    pairs = zip(codes, found, strict=True)
    return frozenset(code for code, flag in pairs if not bool(flag))


def _is_finite(tape: tf.GradientTape, call: Met) -> tf.Tensor:
    """Whether the true derivative of a function is finite where it was called."""
    results = floating(tf.nest.flatten(call.results))
    arguments = floating(tf.nest.flatten(call.arguments))
    gradients = vjp(tape, results, arguments, [tf.ones_like(one) for one in results])
    return all_finite([one for one in gradients if one is not None])
