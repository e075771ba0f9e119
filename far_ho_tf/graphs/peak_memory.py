"""The most bytes that a traced graph holds at any time."""

import collections
import math
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf._types import Structure

# By references of tensors: those whose memory they show.
_Origins: TypeAlias = dict[Hashable, set[Hashable]]

# What gives its input on, or makes nothing: no memory of its own.
_VIEWS = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient")
_ELEMENTWISE = (
    *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg", "Square", "Sqrt"),
    *("Rsqrt", "Exp", "Log", "Pow", "Tanh", "TanhGrad", "Sigmoid", "SigmoidGrad"),
    *("Relu", "ReluGrad", "Select", "SelectV2", "Maximum", "Minimum", "Abs", "Sign"),
    *("Cast", "BroadcastTo", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal"),
)
_NOTHING = ("Const", "Placeholder", "NoOp", "ReadVariableOp", "Shape", "ZerosLike")


def peak(graph: FuncGraph, given: Sequence[tf.Tensor], fused: bool) -> int:
    """The most bytes that a graph's operations hold at any time, one by one.

    An operation whose result is as large as an input that nothing else needs writes
    over that input; matrix products and the like do not. TensorFlow's executor takes
    operations as they become ready, and holds what a step is given until it ends. XLA
    writes over that, makes one operation of several that go element by element, and
    finishes one thing before the next: the order in which they were traced.

    Args:
        graph: A `FuncGraph` whose shapes are known.
        given: List of those of its inputs that count.
        fused: Whether XLA compiles it.
    """
    operations = needed(graph)
    if not fused:
        operations = _as_ready(operations)
    origins, last = _uses(graph, operations, fused)
    live = {t.ref(): _size(t) for t in given if fused and t.ref() in last}
    held = most = sum(_size(tensor) for tensor in given)
    for index, operation in enumerate(operations):
        made = {t.ref(): _size(t) for t in operation.outputs if t.ref() not in origins}
        if operation.type in _NOTHING:
            continue
        used = {ref for t in operation.inputs for ref in _origins(origins, t)}
        ending = [ref for ref in used if last[ref] == index and ref in live]
        freed = sum(live.pop(ref) for ref in ending)
        reused = 0 if _needs_its_inputs(operation) else min(sum(made.values()), freed)
        most = max(most, held + sum(made.values()) - reused + _workspace(operation))
        kept = {ref: size for ref, size in made.items() if ref in last}
        live |= kept
        held += sum(kept.values()) - freed
    return most


def needed(graph: FuncGraph) -> list[tf.Operation]:
    """The operations that the outputs of a graph come from, in order."""
    wanted, found = set(), [tensor.op for tensor in graph.outputs]
    while found:
        operation = found.pop()
        if operation not in wanted:
            wanted.add(operation)
            found.extend(tensor.op for tensor in operation.inputs)
    return [operation for operation in graph.get_operations() if operation in wanted]


def is_told(operation: tf.Operation) -> bool:
    """Whether `peak` knows what an operation makes; not of loops and their stacks."""
    return all(
        tensor.dtype != tf.variant and tensor.shape.is_fully_defined()
        for tensor in operation.outputs
        if tensor.dtype not in (tf.resource, tf.string)
    )


def bytes_of(structure: Structure) -> int:
    """The bytes of a structure of tensors."""
    return sum(_size(tensor) for tensor in tf.nest.flatten(structure))


def _as_ready(operations: Sequence[tf.Operation]) -> list[tf.Operation]:
    """First ready, first taken."""
    waiting, users = {}, collections.defaultdict(list)
    for operation in operations:
        makers = {tensor.op for tensor in operation.inputs}
        waiting[operation] = len(makers)
        for maker in makers:
            users[maker].append(operation)
    order = [operation for operation in operations if not waiting[operation]]
    for operation in order:  # Which grows.
        for user in users[operation]:
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    return order


def _uses(
    graph: FuncGraph, operations: Sequence[tf.Operation], fused: bool
) -> tuple[_Origins, dict[Hashable, int]]:
    """Whose memory a view shows, and the last operation that needs a tensor.

    Under XLA what is made element by element for one other operation is a view, of
    several tensors.
    """
    origins, last = {}, {}
    consumers = collections.Counter(t.ref() for op in operations for t in op.inputs)
    consumers.update(tensor.ref() for tensor in graph.outputs)
    for index, operation in enumerate(operations):
        for tensor in operation.inputs:
            last |= dict.fromkeys(_origins(origins, tensor), index)
        elementwise = fused and operation.type in _ELEMENTWISE
        for tensor in operation.outputs:
            if operation.type in _VIEWS or (
                elementwise and consumers[tensor.ref()] == 1
            ):
                origins[tensor.ref()] = {
                    ref for t in operation.inputs for ref in _origins(origins, t)
                }
    for tensor in graph.outputs:
        if tensor.ref() in origins and tensor.op.type in _ELEMENTWISE:
            del origins[tensor.ref()]  # It has to be written in the end.
        last |= dict.fromkeys(_origins(origins, tensor), len(operations))
    return origins, last


def _origins(origins: _Origins, tensor: tf.Tensor) -> set[Hashable]:
    return origins.get(tensor.ref(), {tensor.ref()})


def _needs_its_inputs(operation: tf.Operation) -> bool:
    return any(kind in operation.type for kind in ("MatMul", "Conv", "Pool", "Einsum"))


def _workspace(operation: tf.Operation) -> int:
    """What a convolution's two gradients hold as they run: its input in patches."""
    if not operation.type.startswith("Conv2DBackprop"):
        return 0
    _, kernel, cotangent = operation.inputs
    if operation.type == "Conv2DBackpropFilter":
        kernel = operation.outputs[0]
    if not (kernel.shape.is_fully_defined() and cotangent.shape.is_fully_defined()):
        return 0
    patches = math.prod([*cotangent.shape[:3], *kernel.shape[:3]])  # pyright: ignore[reportArgumentType, reportCallIssue]
    return 2 * cotangent.dtype.size * patches  # Both are ready at once.


def _size(tensor: tf.Tensor) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    return (tensor.shape.num_elements() or 0) * tensor.dtype.size
