"""The shapes of what the operations of a traced graph read."""

from collections.abc import Iterable, Mapping

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.python.framework import op_def_registry

_UNKNOWN = tf.TensorShape(None)  # pyright: ignore[reportArgumentType]


class Shapes:
    """Shapes of the tensors of a graph, or of a function that it calls.

    Args:
        nodes: Its `NodeDef`s, with "_output_shapes".
        arguments: Mapping from the names of the function's arguments to their shapes,
            as far as these are told: those of an imported function are not.
    """

    def __init__(
        self,
        nodes: Iterable[NodeDef],
        arguments: Mapping[str, tf.TensorShape] | None = None,
    ) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._arguments = arguments or {}

    def of(self, tensor: str) -> tf.TensorShape:
        """The `tf.TensorShape` of a tensor, named as by the nodes that read it."""
        name, *place = tensor.split(":")
        if name not in self._nodes:
            return self._arguments.get(name, _UNKNOWN)
        node = self._nodes[name]
        return output_shape(node, _index(node, *place))


def output_shape(node: NodeDef, index: int = 0) -> tf.TensorShape:
    """The `tf.TensorShape` of an output of a node."""
    shapes = node.attr["_output_shapes"].list.shape
    return tf.TensorShape(shapes[index]) if index < len(shapes) else _UNKNOWN  # pyright: ignore[reportArgumentType]


def _index(node: NodeDef, first: str = "0", second: str | None = None) -> int:
    """The number of an output among all of its node.

    In a graph its name ends with just that, or with nothing for the first. In a
    function it ends with the name of an output and a number, as one may be a list.
    """
    if second is None:
        return int(first)
    before = 0
    made = op_def_registry.get(node.op).output_arg  # pyright: ignore[reportOptionalMemberAccess]
    for argument in made:
        if argument.name == first:
            break
        before += _length(argument, node)
    return before + int(second)


def _length(argument: OpDef.ArgDef, node: NodeDef) -> int:
    if argument.number_attr:
        return node.attr[argument.number_attr].i
    if argument.type_list_attr:
        return len(node.attr[argument.type_list_attr].list.type)
    return 1
