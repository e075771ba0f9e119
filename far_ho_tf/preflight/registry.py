"""Where TensorFlow's own registry of gradients ends a derivative in silence."""

import functools

import tensorflow as tf
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


def is_cut(node, depends):
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
    definition = op_def_registry.get(node.op)
    made, read = (
        [
            _is_floating(dtype)
            for argument in arguments
            for dtype in _dtypes(node, argument)
        ]
        for arguments in (definition.output_arg, definition.input_arg)
    )
    return any(made) and any(
        flag and floating for flag, floating in zip(depends, read, strict=False)
    )


@functools.cache
def not_differentiable():
    """The types of such operations, where their derivative is not zero, as a set."""
    registered = ops.gradient_registry
    return {
        name
        for name in registered.list()
        if registered.lookup(name) is None
        and name not in (_RIGHT | DERIVATIVES.keys())
        and op_def_registry.get(name) is not None
    }


def _dtypes(node, argument):
    """The dtypes (as numbers) of the tensors of an argument of a node."""
    if argument.type_list_attr:
        return list(node.attr[argument.type_list_attr].list.type)
    dtype = argument.type or node.attr[argument.type_attr].type
    return [dtype] * (node.attr[argument.number_attr].i if argument.number_attr else 1)


def _is_floating(dtype):
    dtype = tf.as_dtype(dtype or tf.int32).base_dtype
    return dtype.is_floating or dtype.is_complex
