"""What two equal problems have in common: so that one compiled program serves both."""

import hashlib
from typing import NamedTuple

import tensorflow as tf

# Attributes of operations that say nothing of what they compute.
_NAMES = ("_class", "_user_specified_name", "shared_name")
# One of a process: a derivative that is a Python function, of which nothing is known.
_OWN_DERIVATIVE = "_gradient_op_type"
# Python functions, which live as long as a graph that calls them.
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


class Signature(NamedTuple):
    """What a problem's programs depend on, but for the tensors that they are given.

    Attributes:
        key: String, equal for problems whose programs are equal; `None` where that
            cannot be told.
        captures: List of tensors: what the traced parts capture, in an order that equal
            problems share.
    """

    key: str | None
    captures: list


def signature(graphs, roles, more):
    """The `Signature` of a problem.

    Args:
        graphs: List of `FuncGraph`s, that tell all that a program is made of.
        roles: List of lists of variables whose part in the problem is not told by the
            graphs.
        more: What else matters, as a string.
    """
    captures = [external for graph in graphs for external, _ in graph.captures]
    places = {}  # What is one tensor in one problem may be two in another.
    for place, external in enumerate(captures):
        places.setdefault(id(external), place)
    pattern = [places[id(external)] for external in captures]
    handles = [
        [places.get(id(variable.handle)) for variable in variables]
        for variables in roles
    ]
    digests = [_graph_digest(graph) for graph in graphs]
    if None in digests:
        return Signature(None, captures)
    text = repr((digests, pattern, handles, more))
    return Signature(hashlib.sha256(text.encode()).hexdigest(), captures)


def _graph_digest(graph):
    """A digest of a `FuncGraph` without the names in it; `None` where that fails."""
    definition = graph.as_graph_def(add_shapes=True)
    digests = _Digests(definition.library.function)
    inputs = [tensor.name for tensor in graph.inputs]
    outputs = [tensor.name for tensor in graph.outputs]
    found = digests.of_nodes(definition.node, inputs, outputs)
    specs = tf.nest.map_structure(
        lambda t: None if t is None else (t.shape.as_list(), t.dtype.name),
        graph.structured_outputs,
    )
    return None if digests.failed else f"{found} {specs}"


class _Digests:
    """Digests of functions, and of the nodes that call them.

    Args:
        library: List of `FunctionDef`s.

    Attributes:
        failed: Whether something has no digest.
    """

    def __init__(self, library):
        self._library = {function.signature.name: function for function in library}
        self._known = {}
        self.failed = False

    def of_nodes(self, nodes, inputs, outputs):
        """A digest of nodes in order, and of which tensors go in and out."""
        digest = hashlib.sha256()
        places = {}
        for name in inputs:
            places.setdefault(name.split(":")[0], f"input {len(places)}")
        # A node of a loop's cycle, or a function's, may come before what it reads.
        for node in nodes:
            places.setdefault(node.name, str(len(places)))

        def place(name):
            control = name.startswith("^")
            node, _, output = name.lstrip("^").partition(":")
            return f"{'^' * control}{places.get(node, node)}:{output or 0}"

        for node in nodes:
            self.failed |= node.op in _PYTHON
            read = [place(name) for name in node.input]
            text = f"{places[node.name]} {node.op} {read} {node.device}"
            digest.update(text.encode())
            for name in sorted(node.attr):
                if name not in _NAMES:
                    digest.update(name.encode())
                    digest.update(self._of_attribute(name, node.attr[name]))
        digest.update(repr([place(name) for name in outputs]).encode())
        return digest.hexdigest()

    def _of_attribute(self, name, value):
        self.failed |= name == _OWN_DERIVATIVE
        kind = value.WhichOneof("value")
        functions = list(value.list.func) if kind == "list" else []
        if kind == "func":
            functions = [value.func]
        if not functions:
            return value.SerializeToString(deterministic=True)
        return repr([self._of_function(one.name) for one in functions]).encode()

    def _of_function(self, name):
        if name not in self._known:
            function = self._library.get(name)
            if function is None:  # Of an operation that Python defines.
                self.failed = True
                return ""
            signature = function.signature
            inputs = [argument.name for argument in signature.input_arg]
            outputs = [function.ret[result.name] for result in signature.output_arg]
            types = [(a.type, a.is_ref) for a in signature.input_arg]
            nodes = self.of_nodes(function.node_def, inputs, outputs)
            self._known[name] = f"{types} {nodes}"
        return self._known[name]
