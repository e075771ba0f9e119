"""How patches are put in place.

Derivatives of operations go into TensorFlow's registry of gradients, so that they hold
however an operation is made.
"""

import contextvars
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf.contexts import having

_F = TypeVar("_F", bound=Callable[..., Any])
# What the derivative of an operation gives: one for each input.
Gradients: TypeAlias = tf.Tensor | Sequence[tf.Tensor | None]

# By the types of operations; and what they take the place of.
DERIVATIVES: dict[str, Callable[..., Any]] = {}
REPLACED: dict[str, Callable[..., Any]] = {}

_assumed = contextvars.ContextVar("whether tapes are to be assumed", default=False)


def derivative_of(*types: str) -> Callable[[_F], _F]:
    """Decorator: names the types of operations whose derivative a function is.

    It takes the operation and the cotangents of its outputs, as the functions of
    `tf.RegisterGradient` do.
    """

    def name(function: _F) -> _F:
        DERIVATIVES.update(dict.fromkeys(types, function))
        return function

    return name


def register() -> None:
    """Puts them into TensorFlow's registry, which takes none a second time."""
    registered = ops.gradient_registry._registry
    for name, derivative in DERIVATIVES.items():
        if name not in registered:
            tf.RegisterGradient(name)(derivative)
            continue
        REPLACED[name] = registered[name]["type"]
        registered[name] = registered[name] | {"type": derivative}


def reduced(gradient: tf.Tensor, operand: tf.Tensor) -> tf.Tensor:
    """A gradient, summed where its operand was broadcast."""
    if gradient.shape.is_fully_defined() and gradient.shape == operand.shape:
        return gradient
    inner = tf.shape(operand)
    _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(gradient), s1=inner)
    return tf.reshape(tf.reduce_sum(gradient, axes), inner)


def assuming_tapes() -> AbstractContextManager[None]:
    """Within, what is made is what would be made under a tape, which takes longer."""
    return having(_assumed, True)


def is_watched(*tensors: tf.Tensor) -> bool:
    """Whether what is made of some tensors is, or is assumed to be, differentiated.

    Within a loop or branch of a graph that is assumed: tapes are around it.
    """
    graph = tf.compat.v1.get_default_graph()
    is_inside = isinstance(getattr(graph, "outer_graph", None), FuncGraph)
    return _assumed.get() or is_inside or record.should_record_backprop(list(tensors))


def is_none(cotangent: tf.Tensor) -> bool:
    """Whether a cotangent stands for none: zeros, as tapes write them."""
    if tf.is_symbolic_tensor(cotangent) and cotangent.op.type == "ZerosLike":
        return True
    value = tf.get_static_value(cotangent)
    return value is not None and not value.any()


class Overlay:
    """A module with other things under some of its names."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__ |= names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def held(tensor: tf.Tensor) -> tf.Tensor:
    """A tensor that derivatives take as constant, since it has no part in them."""
    with tf.name_scope("held"):
        return tf.stop_gradient(tensor)
