"""Traced functions under names that tell what they compute."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function.atomic_function import (
    AtomicFunction,  # What a tf.function calls in the end.
)

from far_ho_tf._types import Structure
from far_ho_tf.graphs.functions import called_with, once_traced, specs


class Executable:
    """A function of a structure of tensors, traced for inputs of one kind.

    Args:
        function: Callable(inputs) -> a structure of tensors and `None`.
        inputs: A structure of tensors and `None`, of that kind.
        call_options: TensorFlow's `FunctionCallOptions` for it.
        salt: String, to be told from another that computes the same.
        options: Those of `tf.function`.

    Attributes:
        size: The number of its operations, those of the functions within too.
        is_new: Whether there was no such function in this process.
        one_by_one: Mapping: what `vectorize.noted` told as it was traced.
    """

    _pack: Callable[[Iterator[tf.Tensor]], Structure]

    def __init__(
        self,
        function: Callable[[Structure], Structure],
        inputs: Structure,
        call_options: context.FunctionCallOptions,
        salt: str = "",
        **options: Any,
    ) -> None:
        like = specs(inputs)
        given = [spec is not None for spec in tf.nest.flatten(like)]

        def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
            rest = iter(tensors)
            flat = [next(rest) if is_tensor else None for is_tensor in given]
            outputs = function(tf.nest.pack_sequence_as(like, flat))
            self._pack = _packing(outputs)
            return [t for t in tf.nest.flatten(outputs) if t is not None]

        # Kept for its graph, as which the functions of Python live that it calls.
        self._concrete = once_traced(call, **options).get_concrete_function(
            *[spec for spec in tf.nest.flatten(like) if spec is not None]
        )
        self._call_options = call_options
        known, new = {}, set()
        self._function = _renamed(self._concrete.inference_fn, known, new, salt)
        self.is_new = self._function.name in new
        self.size = sum(len(one.definition.node_def) for one in known.values())
        self._captures = self._concrete.captured_inputs
        self.one_by_one = {}

    def __call__(self, flat: Iterable[tf.Tensor | None]) -> Structure:
        """What the function returns.

        Args:
            flat: The tensors of `inputs`, `None` among them, in the order of
                `tf.nest.flatten`.
        """
        tensors = _tensors(flat)
        # A tenth of a millisecond faster than by the concrete function.
        with called_with(self._call_options):
            outputs = self._function.call_flat(*tensors, *self._captures)  # pyright: ignore[reportArgumentType]
        return self._pack(iter(outputs))  # pyright: ignore[reportArgumentType]

    def fail(self, flat: Iterable[tf.Tensor | None]) -> None:
        """Runs what failed once more, under TensorFlow's own names.

        By them an error tells the lines in which its operation was made.
        """
        with called_with(self._call_options):
            self._concrete(*_tensors(flat))


def _tensors(flat: Iterable[tf.Tensor | None]) -> list[tf.Tensor]:
    return [tensor for tensor in flat if tensor is not None]


def _packing(structure: Structure) -> Callable[[Iterator[tf.Tensor]], Structure]:
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


def _renamed(
    function: AtomicFunction,
    known: dict[bytes, AtomicFunction],
    new: set[bytes],
    salt: str,
) -> AtomicFunction:
    """A traced function under a name that tells what it computes, without its graph.

    So XLA finds what it has compiled for an equal problem, and in its cache on disk
    what another process has: both compare names, and TensorFlow's own have the numbers
    of all that was traced before. Functions with one name are one and the same.

    Args:
        function: An `AtomicFunction`.
        known: Mapping from names to what was returned for them.
        new: Set of the names that TensorFlow did not know; is added to.
        salt: String that goes into the name, too.
    """
    if function.name in known:
        return known[function.name]
    own = [child for child in function.children if isinstance(child, AtomicFunction)]
    children = [_renamed(child, known, new, salt) for child in own]
    names = {name.decode(): one.name.decode() for name, one in known.items()}
    # Those of imported graphs are of another kind, and keep their names.
    children += [child for child in function.children if child not in own]
    definition = function.definition
    definition.signature.name = salt
    _inline(definition, {child.name.decode(): child for child in own})
    _number(definition)
    for node in definition.node_def:
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name = names.get(called.name, called.name)
    digest = hashlib.sha256(definition.SerializeToString(deterministic=True))
    definition.signature.name = f"far_ho_tf_{digest.hexdigest()[:32]}"
    renamed = AtomicFunction(  # Which counts, so that nobody removes what it names.
        definition.signature.name,
        function._bound_context,
        function.function_type,
        children,
        function.call_options,
    )
    if not context.context().has_function(definition.signature.name):  # pyright: ignore[reportOptionalMemberAccess]
        context.context().add_function_def(definition)  # pyright: ignore[reportOptionalMemberAccess]
        new.add(renamed.name)
    known[function.name] = renamed
    return renamed


def _number(definition: FunctionDef) -> None:
    """Numbers arguments, operations and results in the place of names.

    They hold the names of Keras' layers, which are others each time, and the numbers of
    functions.
    """
    names = {}
    for place, argument in enumerate(definition.signature.input_arg):
        names[argument.name] = argument.name = f"argument_{place}"
    for place, node in enumerate(definition.node_def):
        names[node.name] = node.name = f"node_{place}"
        node.attr.pop("_class", None)  # Told by name which others are beside it.
        node.ClearField("experimental_debug_info")
    for node in definition.node_def:
        node.input[:] = [_numbered(name, names) for name in node.input]
    for name in ("forward_function_name", "backward_function_name"):
        definition.attr.pop(name, None)
    for attributes in definition.arg_attr.values():
        attributes.attr.pop("_user_specified_name", None)
    made = [definition.ret.pop(r.name) for r in definition.signature.output_arg]
    for place, result in enumerate(definition.signature.output_arg):
        result.name = f"result_{place}"
        definition.ret[result.name] = _numbered(made[place], names)
    for result, name in list(definition.control_ret.items()):
        definition.control_ret[result] = _numbered(name, names)


def _numbered(name: str, names: Mapping[str, str]) -> str:
    """A name with "^" before it, for what is only waited for, or ":output:0" behind."""
    mark, bare = name[: name.startswith("^")], name.removeprefix("^")
    node, colon, output = bare.partition(":")
    return mark + names[node] + colon + output


def _inline(definition: FunctionDef, functions: Mapping[str, AtomicFunction]) -> None:
    """Puts the loops that TensorFlow has wrapped for its tapes into what calls them.

    XLA looks for the values that it must know to compile: through a loop variable by
    variable, but not through a call. There, all that is read would be such a value, and
    each other batch would be compiled anew.

    Args:
        definition: A `FunctionDef`.
        functions: Mapping from names to the `AtomicFunction`s that it calls.
    """
    for call in [n for n in definition.node_def if _is_wrapped_loop(n)]:
        inner = functions[call.attr["f"].func.name].definition
        given = [name for name in call.input if not name.startswith("^")]
        waits = [name for name in call.input if name.startswith("^")]
        names = {
            argument.name: name
            for argument, name in zip(inner.signature.input_arg, given, strict=True)
        }

        prefix = f"{call.name}/inlined/"
        while any(node.name.startswith(prefix) for node in definition.node_def):
            prefix += "_"

        def outer(
            name: str, names: Mapping[str, str] = names, prefix: str = prefix
        ) -> str:
            mark, bare = name[: name.startswith("^")], name.removeprefix("^")
            if bare not in names:
                return f"{mark}{prefix}{bare}"
            return mark + (names[bare].split(":")[0] if mark else names[bare])

        results = {
            f"{call.name}:output:{place}": outer(inner.ret[result.name])
            for place, result in enumerate(inner.signature.output_arg)
        }
        made = []
        for node in inner.node_def:
            copied = definition.node_def.add()
            copied.CopyFrom(node)
            copied.name = prefix + node.name
            copied.input[:] = [*map(outer, node.input), *waits]
            made.append(f"^{copied.name}")
        for node in definition.node_def:
            node.input[:] = [
                other
                for name in node.input
                for other in (
                    made if name == f"^{call.name}" else [results.get(name, name)]
                )
            ]
        for result, name in list(definition.ret.items()):
            definition.ret[result] = results.get(name, name)
        definition.node_def.remove(call)


def _is_wrapped_loop(node: NodeDef) -> bool:
    if node.op != "PartitionedCall":  # A stateful one ends in what must be done.
        return False
    return "cflow_gradient_wrapper" in node.attr["f"].func.name
