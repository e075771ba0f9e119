"""A digest of what a traced graph computes, the same in every process."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.func_graph import FuncGraph

# Attributes that name things, or say how and not what is computed.
_NAMING = (
    *("config", "config_proto", "container", "executor_type", "metadata"),
    *("shared_name", "token"),
)
_INTERNAL = ("_", "debug_")


def fingerprint(graph: FuncGraph) -> str:
    """A digest of what a `FuncGraph` computes, as 16 hexadecimal digits.

    Two are equal where the operations, their attributes and constants, and what flows
    from where to where are. Names and the order in which operations were made do not
    count, nor do the values of variables that are read. Tensors that the graph takes
    from outside count as constants.
    """
    graph_def = graph.as_graph_def()
    bodies = _Bodies({f.signature.name: f for f in graph_def.library.function})
    given = {tensor.op.name: f"input {i}" for i, tensor in enumerate(graph.inputs)}
    for number, (external, internal) in enumerate(graph.captures):
        given[internal.op.name] = f"captured {number} {_of_captured(external)}"
    results = [
        f"{one.op.name}:{one.value_index}" for one in graph.outputs if tf.is_tensor(one)
    ]
    return _digest_of(graph_def.node, given, results, bodies)


def fingerprint_of_dataset(dataset: tf.data.Dataset) -> str:
    """A digest of what a `tf.data.Dataset` gives: its steps, seeds and tensors.

    What a Python generator yields is not seen. An empty string of a dataset that
    TensorFlow cannot write down, such as one with more than 2 GB of tensors.
    """
    try:
        written = tf.raw_ops.DatasetToGraphV2(
            input_dataset=dataset._variant_tensor,
            external_state_policy=1,  # Left out.
            strip_device_assignment=True,
        )
        graph_def = GraphDef.FromString(written.numpy())
    except (tf.errors.OpError, DecodeError):
        return ""
    bodies = _Bodies({f.signature.name: f for f in graph_def.library.function})
    return _digest_of(graph_def.node, {}, [], bodies)


class _Bodies:
    """Digests of the functions of a library, each made once.

    Args:
        library: Mapping from names to `FunctionDef`s.
    """

    def __init__(self, library: Mapping[str, FunctionDef]) -> None:
        self._library = library
        self._known: dict[str, str] = {}

    def digest(self, name: str) -> str:
        """Of a function, by its name."""
        if name not in self._known:
            body = self._library[name]
            given = {
                argument.name: f"input {number} {argument.type}"
                for number, argument in enumerate(body.signature.input_arg)
            }
            results = [body.ret[result.name] for result in body.signature.output_arg]
            self._known[name] = _digest_of(body.node_def, given, results, self)
        return self._known[name]


def _digest_of(
    nodes: Iterable[NodeDef],
    given: Mapping[str, str],
    results: Iterable[str],
    bodies: _Bodies,
) -> str:
    """The digest of a graph's or function's results, and of what is not used.

    Effects, such as an assignment, are among the latter.

    Args:
        nodes: Its `NodeDef`s.
        given: Mapping from the names of what it is given to their digests.
        results: Names of the tensors that it returns, in order.
        bodies: `_Bodies` of the functions that it calls.
    """
    by_name = {node.name: node for node in nodes}
    known = dict(given)
    waiting = list(by_name)
    while waiting:
        name = waiting[-1]
        if name in known:
            waiting.pop()
            continue
        node = by_name[name]
        sources = [_split(source) for source in node.input]
        missing = [source for source, _ in sources if source not in known]
        if missing:
            waiting.extend(missing)
            continue
        # What only must come first is told where it is done.
        flows = [known[source] + port for source, port in sources if port != "^"]
        known[name] = _hashed(node.op, *_attributes(node, bodies), *flows)
        waiting.pop()
    flows = [known[source] + port for source, port in map(_split, results)]
    used = {_split(source)[0] for node in by_name.values() for source in node.input}
    ends = sorted(known[name] for name in by_name if name not in used)
    return _hashed(*flows, "ends", *ends)


def _split(source: str) -> tuple[str, str]:
    """A tensor's name as that of its operation, and of the port; "^" of none."""
    if source.startswith("^"):
        return source[1:], "^"
    name, _, port = source.partition(":")
    # "name" and "name:0" are the same in a graph, "name:y:0" in a function.
    return name, ":" + (port.rpartition(":")[2] or "0") + port.rpartition(":")[0]


def _attributes(node: NodeDef, bodies: _Bodies) -> list[str]:
    return [
        f"{name}={_of_attribute(node.attr[name], bodies)}"
        for name in sorted(node.attr)
        if name not in _NAMING and not name.startswith(_INTERNAL)
    ]


def _of_attribute(value: AttrValue, bodies: _Bodies) -> str:
    kind = value.WhichOneof("value")
    if kind == "func":
        return bodies.digest(value.func.name)
    if kind == "tensor":
        if tf.as_dtype(value.tensor.dtype) in (tf.resource, tf.variant):
            return "handle"
        return _of_array(tf.make_ndarray(value.tensor))
    if kind == "list" and value.list.func:
        return " ".join(bodies.digest(one.name) for one in value.list.func)
    return value.SerializeToString(deterministic=True).hex()


def _of_captured(tensor: tf.Tensor) -> str:
    """Of what a graph takes from outside: a value, or where a variable lies."""
    if tensor.dtype in (tf.resource, tf.variant) or tf.is_symbolic_tensor(tensor):
        return f"{tensor.dtype.name} {tensor.shape}"
    return _of_array(tensor.numpy())


def _of_array(array: np.ndarray) -> str:
    array = np.asarray(array)
    if array.dtype == object:  # Strings.
        content = repr(array.tolist()).encode()
    else:
        content = np.ascontiguousarray(array).tobytes()
    return _hashed(str(array.dtype), str(array.shape), content)


def _hashed(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
