"""Traced functions that are called often, and shared."""

import copy
import hashlib

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function.atomic_function import (
    AtomicFunction,  # What a tf.function calls in the end.
)

from far_ho_tf.tracing import once_traced, specs


class Executable:
    """A function of a structure of tensors, traced for inputs of one kind.

    Args:
        function: Callable(inputs) -> a structure of tensors and `None`.
        inputs: A structure of tensors and `None`, of that kind.
        salt: String, to be told from another that computes the same.
        options: Those of `tf.function`.

    Attributes:
        captures: List of the tensors that it captures.
        size: The number of its operations, those of the functions within too.
        one_by_one: Mapping: what `batching.noted` told as it was traced.
    """

    def __init__(self, function, inputs, salt="", **options):
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
        known = {}
        self._function = _renamed(self._concrete.inference_fn, known, salt)
        self.size = sum(len(one.definition.node_def) for one in known.values())
        self.captures = self._concrete.captured_inputs
        self.one_by_one = {}

    def __call__(self, flat):
        """What the function returns.

        Args:
            flat: The tensors of `inputs`, `None` among them, in the order of
                `tf.nest.flatten`.
        """
        tensors = [tensor for tensor in flat if tensor is not None]
        if tf.inside_function():
            outputs = self._concrete(*tensors)
        else:  # A tenth of a millisecond faster than by the concrete function.
            outputs = self._function.call_flat(*tensors, *self.captures)
        return self._pack(iter(outputs))

    def with_captures(self, captures):
        """The same over other tensors, which keeps nothing alive of its own.

        It is not for calls within a graph.

        Args:
            captures: List of tensors in the place of its `captures`.
        """
        other = copy.copy(self)
        other._concrete, other.captures = None, captures
        return other


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
        kind = getattr(type(structure), "_make", type(structure))
        return lambda tensors: kind([pack(tensors) for pack in packs])
    return next


def _renamed(function, known, salt):
    """A traced function under a name that tells what it computes, without its graph.

    TensorFlow numbers the functions of a process, so that what was traced before would
    be in the name, and XLA would find in no cache what it has compiled.

    Args:
        function: An `AtomicFunction`.
        known: Mapping from names to what was returned for them.
        salt: String that goes into the name, too.
    """
    if function.name in known:
        return known[function.name]
    own = [child for child in function.children if isinstance(child, AtomicFunction)]
    children = [_renamed(child, known, salt) for child in own]
    names = {child.name.decode(): known[child.name].name.decode() for child in own}
    # Those of imported graphs are of another kind, and keep their names.
    children += [child for child in function.children if child not in own]
    definition = function.definition
    definition.signature.name = salt
    _rename_arguments(definition)
    for node in definition.node_def:
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name = names.get(called.name, called.name)
    digest = hashlib.sha256(definition.SerializeToString(deterministic=True))
    definition.signature.name = f"far_ho_tf_{digest.hexdigest()[:32]}"
    if not context.context().has_function(definition.signature.name):
        context.context().add_function_def(definition)
    known[function.name] = AtomicFunction(
        definition.signature.name,
        function._bound_context,
        function.function_type,
        children,
        function.call_options,
    )
    return known[function.name]


def _rename_arguments(definition):
    """Those of loops are named by the loops, with their numbers."""
    names = {}
    for place, argument in enumerate(definition.signature.input_arg):
        names[argument.name] = argument.name = f"argument_{place}"
    for node in definition.node_def:
        node.input[:] = [_renamed_input(names, name) for name in node.input]
    for result, name in list(definition.ret.items()):
        definition.ret[result] = names.get(name, name)


def _renamed_input(names, name):
    """That of a node; "^" is before what it only waits for."""
    bare = name.removeprefix("^")
    return name.removesuffix(bare) + names.get(bare, bare)
