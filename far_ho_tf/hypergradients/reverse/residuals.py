"""Which results of a step are worth keeping for its pullback."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf.graphs.peak_memory import bytes_of, is_told

# As many as take the time of an element of TensorFlow's softmax with its loss.
_IN_A_LOSS = 100
_LOSSES = ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits")

# Multiplications behind an element from which it is kept.
WORTH_KEEPING = 64


class Keeping(NamedTuple):
    """What may be kept of a step beside its state.

    Attributes:
        limit: Integer, bytes.
        worth_keeping: Multiplications behind an element from which it is kept, by
            measurement: see docs/decisions/0017-residuals.md.
    """

    limit: int
    worth_keeping: int = WORTH_KEEPING


def kept_of_step(
    graph: FuncGraph,
    pulled: list[tf.Tensor],
    new: list[tf.Tensor],
    choice: Sequence[tf.Tensor],
    cotangent: Sequence[tf.Tensor],
    keeping: Keeping,
) -> list[tf.Tensor]:
    """What the loop forwards keeps of a step for the way back.

    The results of products and the derivatives of softmax losses, those that save most
    for each byte; or in their place what alone is made of them, such as activations.

    Args:
        graph: The `FuncGraph` of a step and its pullback.
        pulled: List of its tensors: what the pullback makes.
        new: List of its tensors: the new state, which is kept anyway.
        choice, cotangent: Lists of the graph's inputs that the loop forwards has not.
        keeping: A `Keeping`.

    Returns:
        List of tensors of the graph.
    """
    ready = {t.name for t in (*graph.inputs, *new)}
    needed = _needed(graph, pulled, cotangent)
    # What the loop forwards cannot make before the dynamics choose.
    refused = {t.name for op in _made_of(graph, choice) for t in op.outputs}
    while True:
        dear = _dear(needed, ready, refused, keeping.worth_keeping)
        if bytes_of(dear) <= keeping.limit:
            later = {t.name for t in (*choice, *cotangent)}
            at_hand = {t.name for t in graph.inputs} - later
            return _last_of_each(dear, needed, ready, at_hand)
        refused.add(min(dear, key=_saved).name)


def _last_of_each(
    dear: list[tf.Tensor], needed: list[tf.Tensor], ready: set[str], at_hand: set[str]
) -> list[tf.Tensor]:
    """In the place of each of these, the last of what is made of it alone.

    That takes no more bytes: a sum with a bias, or an activation function of it.
    """
    wanted = {t.name for t in needed}
    behind = operations_behind(needed, ready | {t.name for t in dear})

    def last(tensor: tf.Tensor) -> tf.Tensor:
        while tensor.name not in wanted:
            following = _only_result(tensor, behind, at_hand)
            if following is None:
                break
            tensor = following
        return tensor

    return [last(tensor) for tensor in dear]


def _only_result(
    tensor: tf.Tensor, operations: set[tf.Operation], at_hand: set[str]
) -> tf.Tensor | None:
    """What alone of some operations is made of a tensor; `None` if it takes more."""
    users = operations.intersection(tensor.consumers())
    if len(users) != 1:
        return None
    (user,) = users
    others = [t for t in user.inputs if t is not tensor]
    known = all(t.name in at_hand or t.op.type == "Const" for t in others)
    small = is_told(user) and bytes_of(user.outputs) <= bytes_of(tensor)
    alone = known and small and len(user.outputs) == 1
    return user.outputs[0] if alone else None


def operations_behind(
    tensors: Iterable[tf.Tensor], given: Collection[str]
) -> set[tf.Operation]:
    """The set of the operations that make tensors, from those of given names.

    Not those that one is only told to wait for, as some derivatives are for their
    cotangent: where a step may be cut, nothing depends on the order.
    """
    found = set()
    left = [t.op for t in tensors if t.name not in given]
    while left:
        operation = left.pop()
        if operation not in found:
            found.add(operation)
            left += [t.op for t in operation.inputs if t.name not in given]
    return found


def _needed(
    graph: FuncGraph, pulled: list[tf.Tensor], cotangent: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The tensors that the pullback reads and that do not depend on the cotangent."""
    dual = _made_of(graph, cotangent)
    read = [t for operation in dual for t in operation.inputs]
    return [t for t in (*read, *pulled) if t.op not in dual]


def _made_of(
    graph: FuncGraph, tensors: Iterable[tf.Tensor]
) -> dict[tf.Operation, None]:
    """Operations of a graph: those of tensors, and what is made of them, in order."""
    found = dict.fromkeys(t.op for t in tensors)
    for operation in graph.get_operations():  # In topological order.
        if any(t.op in found for t in operation.inputs):
            found[operation] = None
    return found


def _dear(
    needed: list[tf.Tensor], ready: set[str], refused: set[str], least: int
) -> list[tf.Tensor]:
    """What is worth keeping on the ways to what is needed, the last on each."""
    found, seen, left = [], set(ready), list(needed)
    while left:
        tensor = left.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        known = tensor.name not in refused and is_told(tensor.op)
        if known and _saved(tensor) >= least:
            found.append(tensor)
        else:
            left += tensor.op.inputs
    return found


def _saved(tensor: tf.Tensor) -> float:
    """Multiplications behind each element of a result that is dear to make; else 0."""
    kind, inputs = tensor.op.type, tensor.op.inputs
    if kind in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        first = inputs[0].shape
        transposed = tensor.op.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        return first[-2 if transposed else -1] or 0
    if kind == "Conv2D":
        return inputs[1].shape[:-1].num_elements() or 0
    if kind == "Conv2DBackpropInput":
        kernel, output = inputs[1].shape, inputs[2].shape
        behind = (kernel[:-1].num_elements() or 0) * (output.num_elements() or 0)
        return behind / max(1, tensor.shape.num_elements())
    if kind in _LOSSES and tensor.value_index == 1:  # What its derivative reads.
        return _IN_A_LOSS
    return 0
