"""How functions become graphs."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from far_ho_tf._types import ConcreteFunction, PolymorphicFunction, Structure

# Held by the thread that traces: parts of TensorFlow are replaced meanwhile.
TRACING = threading.RLock()


def once_traced(
    function: Callable[..., Structure], **options: Any
) -> PolymorphicFunction:
    """A `tf.function` for inputs of one kind.

    Many of them, each made for one problem, would together set off TensorFlow's alarm
    of functions that are traced again and again.
    """
    compiled = tf.function(function, autograph=False, **options)
    compiled._omit_frequent_tracing_warning = True
    return compiled


@contextlib.contextmanager
def called_with(options: context.FunctionCallOptions) -> Iterator[None]:
    """Within, this thread calls functions so, and writes such calls into graphs.

    Args:
        options: TensorFlow's `FunctionCallOptions`.
    """
    now: context.Context = context.context()  # pyright: ignore[reportAssignmentType]
    before = now.function_call_options
    now.function_call_options = options
    try:
        yield
    finally:
        now.function_call_options = before


def not_inlined(
    function: Callable[..., Structure],
) -> PolymorphicFunction:
    """A `tf.function` whose calls stay calls in the graphs that hold them."""
    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)


def as_one_call(method: Callable[..., Structure]) -> Callable[..., Structure]:
    """A method that is `not_inlined`, unless its object is told to by `is_inline`.

    Of a loop that is not compiled TensorFlow makes one graph with what is around it,
    which has cycles. oneDNN's kernel for MaxPoolGrad takes the place of TensorFlow's
    own only if that of MaxPool did so before, and in a cycle the order is chance.
    """

    @functools.wraps(method)
    def call(self: Any, *arguments: Structure, **options: Structure) -> Structure:
        function = functools.partial(method, self)
        if not self.is_inline:
            function = not_inlined(function)
        return function(*arguments, **options)

    return call


def specs(structure: Structure) -> Structure:
    """A structure of tensors and `None` as one of `tf.TensorSpec`s."""
    return tf.nest.map_structure(
        lambda t: None if t is None else tf.TensorSpec(t.shape, t.dtype), structure
    )


class ConcreteFunctions:
    """The concrete functions of a `tf.function`, by the kind of their arguments.

    TensorFlow's own search for one takes half a millisecond.

    Args:
        function: The `tf.function`.
    """

    def __init__(self, function: PolymorphicFunction) -> None:
        self._function = function
        self._made = {}

    def __call__(self, *arguments: Structure) -> ConcreteFunction:
        """The one for such arguments: structures, always alike, of tensors or specs."""
        kind = tuple(
            other if other is None else (other.shape, other.dtype)
            for other in tf.nest.flatten(arguments)
        )
        if kind not in self._made:
            self._made[kind] = self._function.get_concrete_function(*arguments)
        return self._made[kind]
