"""How functions become graphs."""

import functools
import threading

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.atomic_function import (
    AtomicFunction,  # What a tf.function calls in the end.
)

# Held by the thread that traces: parts of TensorFlow are replaced meanwhile.
TRACING = threading.RLock()


def once_traced(function, **options):
    """A `tf.function` for inputs of one kind.

    Many of them, each made for one problem, would together set off TensorFlow's alarm
    of functions that are traced again and again.
    """
    compiled = tf.function(function, autograph=False, **options)
    compiled._omit_frequent_tracing_warning = True
    return compiled


def not_inlined(function):
    """A `tf.function` whose calls stay calls in the graphs that hold them."""
    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)


def as_one_call(method):
    """A method that is `not_inlined`, unless its object is told to by `is_inline`.

    Of a loop that is not compiled TensorFlow makes one graph with what is around it,
    which has cycles. oneDNN's kernel for MaxPoolGrad takes the place of TensorFlow's
    own only if that of MaxPool did so before, and in a cycle the order is chance.
    """

    @functools.wraps(method)
    def call(self, *arguments, **options):
        function = functools.partial(method, self)
        if not self.is_inline:
            function = not_inlined(function)
        return function(*arguments, **options)

    return call


def specs(structure):
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

    def __init__(self, function):
        self._function = function
        self._made = {}

    def __call__(self, *arguments):
        """The one for such arguments: structures, always alike, of tensors or specs."""
        kind = tuple(
            other if other is None else (other.shape, other.dtype)
            for other in tf.nest.flatten(arguments)
        )
        if kind not in self._made:
            self._made[kind] = self._function.get_concrete_function(*arguments)
        return self._made[kind]


class Executable:
    """A function of a structure of tensors, traced for inputs of one kind.

    Args:
        function: Callable(inputs) -> a structure of tensors and `None`.
        inputs: A structure of tensors and `None`, of that kind.
        options: Those of `tf.function`.

    Attributes:
        captures: List of the tensors that it captures.
    """

    def __init__(self, function, inputs, **options):
        like = specs(inputs)
        given = [spec is not None for spec in tf.nest.flatten(like)]

        def call(*tensors):
            rest = iter(tensors)
            flat = [next(rest) if is_tensor else None for is_tensor in given]
            outputs = function(tf.nest.pack_sequence_as(like, flat))
            self._pack = _packing(outputs)
            return [t for t in tf.nest.flatten(outputs) if t is not None]

        self._concrete = once_traced(call, **options).get_concrete_function(
            *[spec for spec in tf.nest.flatten(like) if spec is not None]
        )
        self._function = self._concrete.inference_fn
        self.captures = self._concrete.captured_inputs

    def __call__(self, flat, captures=None):
        """What the function returns.

        Args:
            flat: The tensors of `inputs`, `None` among them, in the order of
                `tf.nest.flatten`.
            captures: List of tensors in the place of its own `captures`.
        """
        tensors = [tensor for tensor in flat if tensor is not None]
        if tf.inside_function():
            outputs = self._concrete(*tensors)
        else:  # A tenth of a millisecond faster than by the concrete function.
            captures = self.captures if captures is None else captures
            outputs = self._function.call_flat(*tensors, *captures)
        return self._pack(iter(outputs))

    def without_graph(self):
        """The same, which keeps nothing alive of what it was traced from.

        It has no captures of its own, and is not for calls within a graph.
        """
        copy = object.__new__(Executable)
        copy._pack = self._pack
        copy._function = _without_graph(self._function, {})
        copy._concrete, copy.captures = None, []
        return copy


def _packing(structure):
    """A callable(iterator over tensors) that makes a structure of them.

    `tf.nest.pack_sequence_as` for one structure: it takes longer than a short run.
    """
    if structure is None:
        return lambda tensors: None
    if isinstance(structure, dict):
        parts = [(key, _packing(structure[key])) for key in sorted(structure)]
        return lambda tensors: {key: pack(tensors) for key, pack in parts}
    if isinstance(structure, (list, tuple)):
        packs = [_packing(part) for part in structure]
        kind = getattr(type(structure), "_make", list)
        if type(structure) is tuple:
            kind = tuple
        return lambda tensors: kind([pack(tensors) for pack in packs])
    return next


def _without_graph(function, known):
    if function.name not in known:
        known[function.name] = AtomicFunction(
            function.name,
            function._bound_context,
            function.function_type,
            [_without_graph(child, known) for child in function.children],
            function.call_options,
        )
    return known[function.name]
