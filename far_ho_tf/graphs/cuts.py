"""Where derivatives end: by TensorFlow's own registry, and by what operations make."""

import functools
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.python.framework import op_def_registry, ops

from far_ho_tf.patches.registry import DERIVATIVES

# Types whose derivative is zero wherever it exists, or that have no meaning without the
# sessions of TensorFlow 1; what tf.stop_gradient stops is told of by itself.
_RIGHT = frozenset(
    (
        *("OnesLike", "ZerosLike", "StopGradient", "EditDistance"),
        *("StatelessRandomBinomial", "StatelessRandomPoisson"),
        *("StackPush", "TensorArrayGradV3", "TensorArrayGradWithShape"),
    )
)

# Types that make steps of floating numbers, and floating ones of them.
_ROUNDING = frozenset(
    (
        *("Ceil", "Floor", "FloorDiv", "FloorMod", "Mod", "Rint", "Round", "Sign"),
        *("TruncateDiv", "TruncateMod"),
        *("StatelessRandomBinomial", "StatelessRandomPoisson"),
    )
)
# Types whose integers or booleans tell nothing of the numbers that they read, or are
# others at single points only, which the numbers do not meet.
_NO_STEPS = frozenset(
    (
        *("Rank", "Shape", "ShapeN", "Size", "TensorListElementShape"),
        *("ApproximateEqual", "Equal", "NotEqual", "IsFinite", "IsInf", "IsNan"),
    )
)


def is_cut(node: NodeDef, depends: Sequence[bool]) -> bool:
    """Whether a derivative would have to go through a node, and is left out there.

    Those of operations that are registered as not differentiable
    (`tf.no_gradient`, which the registry keeps as `None`), where they make floating
    numbers of floating ones.

    Args:
        node: A `NodeDef`.
        depends: List of booleans: for each input, whether it depends on what is
            differentiated in.
    """
    if not any(depends) or node.op not in not_differentiable():
        return False
    made = _outputs(node)
    return any(map(_is_floating, made)) and _reads_floating(node, depends)


def is_step(node: NodeDef, depends: Sequence[bool]) -> bool:
    """Whether a node makes steps of floating numbers: integers, booleans, round ones.

    Args:
        node: A `NodeDef`.
        depends: List of booleans: for each input, whether it counts.
    """
    if not any(depends):
        return False
    if node.op in _ROUNDING:
        return True
    return (
        _may_make_steps(node.op)
        and any(map(_is_discrete, _outputs(node)))
        and _reads_floating(node, depends)
    )


@functools.cache
def _may_make_steps(kind: str) -> bool:
    """Whether operations of a type can make integers or booleans of other things."""
    definition = op_def_registry.get(kind)
    if kind in _NO_STEPS or definition is None:
        return False
    # What calls functions is searched within these.
    if any("func" in attribute.type for attribute in definition.attr):
        return False
    read = {a.type_attr or a.type_list_attr for a in definition.input_arg}
    return any(
        _is_discrete(made.type)
        if made.type
        else (made.type_attr or made.type_list_attr) not in read
        for made in definition.output_arg
    )


@functools.cache
def not_differentiable() -> set[str]:
    """The types of such operations, where their derivative is not zero, as a set."""
    registered = ops.gradient_registry
    return {
        name
        for name in registered.list()
        if registered.lookup(name) is None
        and name not in (_RIGHT | DERIVATIVES.keys())
        and op_def_registry.get(name) is not None
    }


def _outputs(node: NodeDef) -> list[int]:
    """The dtypes of what a node makes."""
    made = op_def_registry.get(node.op).output_arg  # pyright: ignore[reportOptionalMemberAccess]
    return [dtype for argument in made for dtype in _dtypes(node, argument)]


def _reads_floating(node: NodeDef, depends: Sequence[bool]) -> bool:
    """Whether one of the inputs that count holds floating numbers."""
    arguments = op_def_registry.get(node.op).input_arg  # pyright: ignore[reportOptionalMemberAccess]
    read = [dtype for argument in arguments for dtype in _dtypes(node, argument)]
    pairs = zip(depends, read, strict=False)
    return any(flag and _is_floating(dtype) for flag, dtype in pairs)


def _dtypes(node: NodeDef, argument: OpDef.ArgDef) -> list[int]:
    """The dtypes (as numbers) of the tensors of an argument of a node."""
    if argument.type_list_attr:
        return list(node.attr[argument.type_list_attr].list.type)
    dtype = argument.type or node.attr[argument.type_attr].type
    return [dtype] * (node.attr[argument.number_attr].i if argument.number_attr else 1)


def _is_floating(dtype: int) -> bool:
    kind = tf.as_dtype(dtype or tf.int32).base_dtype
    return kind.is_floating or kind.is_complex


def _is_discrete(dtype: int) -> bool:
    kind = tf.as_dtype(dtype or tf.variant).base_dtype
    return kind.is_integer or kind.is_bool
