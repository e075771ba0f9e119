"""Reading a traced graph: its operations and what they depend on."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf.graphs.cuts import is_cut, is_step
from far_ho_tf.graphs.shapes import Shapes, output_shape

UNKNOWN_SIZE = 32
# How the types of operations that call functions end: "StatelessWhile" is one, too.
CONTROL_FLOW = ("While", "If", "Case")

# Types of operations through which nothing is differentiated.
_CONSTANT = (
    *("ArgMax", "ArgMin", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("NotEqual", "OnesLike", "Rank", "Shape", "Size", "StopGradient", "ZerosLike"),
)

# Types of operations that change the resource that is their first input.
_ASSIGNING = (
    "Assign",
    "ResourceScatter",
    "ResourceStridedSliceAssign",
    "RngReadAndSkip",
    "RngSkip",
    "StatefulUniform",
    "StatefulStandardNormal",
    "StatefulTruncatedNormal",
)


class Operation(NamedTuple):
    """An operation of a graph or of a function that the graph calls.

    Attributes:
        name, type: Strings.
        depends: List of booleans: for each input, whether it depends on the
            roots of the search.
        dtype: Name of the dtype that it works in ("" where it has none).
        multiplications: Their number in a matrix product or a convolution,
            else 0. Dimensions that are not known count as `UNKNOWN_SIZE`.
        keeps_shape: Whether its first two inputs have, or may have, one shape.
        is_cut: Whether TensorFlow leaves out a derivative here; see `cuts.is_cut`.
        is_step: Whether it makes steps of floating numbers; see `cuts.is_step`.
    """

    name: str
    type: str
    depends: list[bool]
    dtype: str
    multiplications: int
    keeps_shape: bool
    is_cut: bool
    is_step: bool


def operations(graph: FuncGraph, roots: Iterable[tf.Tensor]) -> list[Operation]:
    """All operations of a `FuncGraph` and of the functions that it calls.

    Args:
        graph: A `FuncGraph`.
        roots: Iterable of the graph's input tensors to trace dependence from.

    Returns:
        List of `Operation`s.
    """
    graph_def = graph.as_graph_def(add_shapes=True)
    library = {f.signature.name: f for f in graph_def.library.function}
    names = {tensor.op.name for tensor in roots}
    return list(_walk(graph_def.node, names, library))


def types(graph_def: GraphDef) -> set[str]:
    """The set of the types of the operations of a graph and of its functions."""
    return {node.op for node in _nodes(graph_def)}


def coarsest(graph: FuncGraph) -> float:
    """The largest rounding, relatively, of the floating dtypes in a graph."""
    dtypes = {node.attr["T"].type for node in _nodes(graph.as_graph_def())} - {0}
    return max(
        float(ml_dtypes.finfo(dtype.as_numpy_dtype).eps)
        for dtype in map(tf.as_dtype, dtypes)
        if dtype.is_floating
    )


def _nodes(graph_def: GraphDef) -> Iterator[NodeDef]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def assigned(graph: FuncGraph, candidates: Sequence[tf.Tensor]) -> list[bool]:
    """Which resources does the graph, or a function it calls, change?

    Args:
        graph: A `FuncGraph`.
        candidates: List of resource tensors among the graph's inputs.

    Returns:
        List of booleans aligned with `candidates`.
    """
    # Most graphs assign none, which the types of their operations tell.
    if not any(kind.startswith(_ASSIGNING) for kind in types(graph.as_graph_def())):
        return [False] * len(candidates)
    return [_assign(operations(graph, [candidate])) for candidate in candidates]


def influences(graph: FuncGraph, root: tf.Tensor) -> bool:
    """Whether what a `FuncGraph` returns may depend on one of its input tensors."""
    reached = _reachable(graph.as_graph_def().node, {root.op.name})
    return any(tensor.op.name in reached for tensor in graph.outputs)


def reads(graph: FuncGraph, roots: Iterable[tf.Tensor]) -> bool:
    """Whether what a `FuncGraph` returns depends on some tensors, by steps too.

    Not by tf.stop_gradient, which is written on purpose.
    """
    reached = _reachable(
        graph.as_graph_def().node, {root.op.name for root in roots}, through_steps=True
    )
    return any(tensor.op.name in reached for tensor in graph.outputs)


def _assign(found: Iterable[Operation]) -> bool:
    """Whether an operation changes a resource that depends on the roots."""
    return any(op.type.startswith(_ASSIGNING) and op.depends[0] for op in found)


def _walk(
    nodes: Sequence[NodeDef],
    roots: Iterable[str],
    library: Mapping[str, FunctionDef],
    arguments: Mapping[str, tf.TensorShape] | None = None,
) -> Iterator[Operation]:
    reached = _reachable(nodes, roots)
    shapes = Shapes(nodes, arguments)
    for node in nodes:
        depends = [name in reached for name in _inputs(node)]
        operands = [shapes.of(name) for name in _read(node)[:2]]
        yield Operation(
            node.name,
            node.op,
            depends,
            _dtype(node),
            _multiplications(node, operands),
            _one_shape(node, operands),
            is_cut(node, depends),
            is_step(node, depends),
        )
        for function in _called(node, library):
            names = [argument.name for argument in function.signature.input_arg]
            flags = depends[len(depends) - len(names) :]
            if "While" in node.op:
                flags = _through_loop(library[node.attr["body"].func.name], flags)
            inner = {name for name, flag in zip(names, flags, strict=True) if flag}
            given = map(tf.TensorShape, function.attr["_input_shapes"].list.shape)  # pyright: ignore[reportArgumentType]
            known = dict(zip(names, given, strict=False))
            yield from _walk(function.node_def, inner, library, known)


def _through_loop(body: FunctionDef, flags: list[bool]) -> list[bool]:
    """Which loop variables depend on the roots in some turn of the loop."""
    arguments = [argument.name for argument in body.signature.input_arg]
    results = [
        body.ret[result.name].split(":")[0] for result in body.signature.output_arg
    ]
    while True:
        inner = {a for a, flag in zip(arguments, flags, strict=True) if flag}
        reached = _reachable(body.node_def, inner)
        grown = [
            flag or result in reached
            for flag, result in zip(flags, results, strict=True)
        ]
        if grown == flags:
            return flags
        flags = grown


def _reachable(
    nodes: Sequence[NodeDef], roots: Iterable[str], through_steps: bool = False
) -> set[str]:
    reached = set(roots)
    stops = ("StopGradient",) if through_steps else _CONSTANT
    grown = True
    while grown:  # Functions do not promise a topological order.
        before = len(reached)
        for node in nodes:
            if node.op not in stops and any(n in reached for n in _inputs(node)):
                reached.add(node.name)
        grown = len(reached) > before
    return reached


def _read(node: NodeDef) -> list[str]:
    """The names of the tensors that a node reads."""
    return [name for name in node.input if not name.startswith("^")]


def _inputs(node: NodeDef) -> list[str]:
    """The names of the nodes and arguments that they come from."""
    return [name.split(":")[0] for name in _read(node)]


def _called(node: NodeDef, library: Mapping[str, FunctionDef]) -> Iterator[FunctionDef]:
    for attribute in node.attr.values():
        for function in (attribute.func, *attribute.list.func):
            if function.name in library:
                yield library[function.name]


def _dtype(node: NodeDef) -> str:
    enum = node.attr["T"].type if "T" in node.attr else 0
    return tf.as_dtype(enum).name if enum else ""


def _one_shape(node: NodeDef, operands: Sequence[tf.TensorShape]) -> bool:
    """Whether the first two operands have, or may have, one shape."""
    if len(operands) < 2 or not operands[0].is_compatible_with(operands[1]):
        return False
    strides = node.attr["strides"].list.i
    shape = operands[0].merge_with(operands[1])
    sizes = [None] * len(strides) if shape.rank is None else shape.as_list()
    # A stride makes another size of one that is not known, unless that is 1.
    return not any(n is None and s > 1 for n, s in zip(sizes, strides, strict=False))


def _multiplications(node: NodeDef, operands: Sequence[tf.TensorShape]) -> int:
    """Elements of the output times the length of the sum behind each."""
    output = output_shape(node)
    if output.rank is None or any(operand.rank is None for operand in operands):
        return 0
    if "MatMul" in node.op and operands[0].rank >= 2:  # A sparse one is a scalar.
        transposed = node.attr["transpose_a"].b or node.attr["adj_x"].b
        length = [operands[0][-2 if transposed else -1]]
    elif node.op in ("Conv2D", "Conv3D"):
        length = operands[1][:-1]
    elif node.op == "DepthwiseConv2dNative":
        length = operands[1][:-2]
    else:
        return 0
    sizes = [UNKNOWN_SIZE if size is None else size for size in (*output, *length)]
    return math.prod(sizes)
