"""A step and its pullback, traced once and cut where the least is computed again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework.func_graph import FuncGraph, func_graph_from_py_func

from far_ho_tf._types import Structure
from far_ho_tf.graphs.search import CONTROL_FLOW, types
from far_ho_tf.hypergradients.reverse.residuals import (
    Keeping,
    kept_of_step,
    operations_behind,
)
from far_ho_tf.variables.state import State

# Operations that only read a state.
_READS = ("ReadVariableOp", "Placeholder")


class Traced(NamedTuple):
    """What is traced together; tensors of one graph.

    Attributes:
        made: Structure: what the oracle of a step makes.
        new: Structure: the parts of the new state that the pullback may read.
        pulled: Structure of tensors and `None`: what the pullback makes.
    """

    made: Structure
    new: Structure
    pulled: Structure


class ForPullback(NamedTuple):
    """What the pullback of a step needs of it.

    Attributes:
        state: The new `State`.
        residuals: List of tensors: what the `Split` keeps beside it.
    """

    state: State
    residuals: list[tf.Tensor]


class Split:
    """The oracle of a step, and the step's pullback, as two parts of one graph.

    The loop forwards keeps what the pullback needs and what is dear to make, as far as
    it fits (see `kept_of_step`); what is cheap, element by element, is made again. What
    the step made of the state is read from the next state: where the update rule's
    derivative needs its gradient for nothing else, that is not made again.

    Args:
        trace: Callable(*arguments) -> `Traced`. The last two arguments are what the
            dynamics chose, on which `made` does not depend, and the cotangent, on
            which neither `made` nor `new` does.
        like: Tuple of structures of `tf.TensorSpec`s: the arguments.
        keeping: A `Keeping`: what may be kept of a step.

    Attributes:
        kept: List of symbolic tensors, of the shapes and dtypes of what is kept.
        is_safe: Whether the graph holds nothing that may not be cut.

    Source: Chen et al. 2016 (sublinear memory) on what to keep: what is expensive.
    """

    def __init__(
        self,
        trace: Callable[..., Traced],
        like: tuple[Structure, ...],
        keeping: Keeping,
    ) -> None:
        held = []

        def call(*arguments: Structure) -> list[tf.Tensor]:
            held.append(trace(*arguments))
            return flat(held[0])

        # No function: nothing calls it, and its parts need not wait for each other.
        graph = func_graph_from_py_func(
            "step", call, like, {}, add_control_dependencies=False
        )
        self._graph, self._graph_def = graph, graph.as_graph_def()
        self._traced = held[0]
        self._arguments = graph.inputs[: len(flat(like))]
        pulled, new = flat(self._traced.pulled), flat(self._traced.new)
        self.kept = kept_of_step(graph, pulled, new, *self._later(like), keeping)
        self.is_safe = _is_safe(graph, self._graph_def)

    def _later(
        self, like: tuple[Structure, ...]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """What the dynamics chose, and the cotangent."""
        choice, cotangent = (len(flat(part)) for part in like[-2:])
        before = len(self._arguments) - choice - cotangent
        return self._arguments[before:-cotangent], self._arguments[-cotangent:]

    def oracle(self, *arguments: Structure) -> tuple[Structure, list[tf.Tensor]]:
        """`made`, and what is kept, of a step; takes the first of the arguments, those
        that both depend on."""
        given = _pairs(self._arguments, arguments)
        count = len(tf.nest.flatten(self._traced.made))
        tensors = self._import(given, [*tf.nest.flatten(self._traced.made), *self.kept])
        made = tf.nest.pack_sequence_as(self._traced.made, tensors[:count])
        return made, tensors[count:]

    def pull(
        self, arguments: Structure, new: Structure, kept: list[tf.Tensor]
    ) -> Structure:
        """`pulled`, at a step.

        Args:
            arguments: All of them.
            new: The parts of the new state.
            kept: What `oracle` returned.
        """
        given = _pairs(self._arguments, arguments)
        given |= _pairs(tf.nest.flatten(self._traced.new), new)
        given |= _pairs(self.kept, kept)
        return tf.nest.pack_sequence_as(
            self._traced.pulled,
            self._import(given, tf.nest.flatten(self._traced.pulled)),
        )

    def _import(
        self, given: dict[str, tf.Tensor], wanted: Sequence[tf.Tensor | None]
    ) -> list[Any]:
        """Puts that part of the graph that makes some tensors here.

        Args:
            given: Mapping from names of tensors of the graph to what stands for them.
            wanted: List of tensors of the graph and `None`.
        """
        here = tf.compat.v1.get_default_graph()
        given = given | {inner.name: outer for outer, inner in self._graph.captures}
        asked = [t for t in wanted if t is not None and t.name not in given]
        operations = operations_behind(asked, given)
        names = {operation.name for operation in operations}
        # In the same order in each process, as compile caches ask for.
        used = {t.name for op in operations for t in op.inputs if t.name in given}
        part = tf.compat.v1.GraphDef()
        part.CopyFrom(self._graph_def)
        del part.node[:]
        part.node.extend(n for n in self._graph_def.node if n.name in names)
        for node in part.node:
            node.attr.pop("_class", None)  # Colocation with what may be left out.
            # Some wait for what is left out, such as derivatives for a cotangent.
            inputs = [n for n in node.input if n[0] != "^" or n[1:] in names]
            del node.input[:]
            node.input.extend(inputs)
        made = tf.graph_util.import_graph_def(
            part,
            {name: here.capture(given[name]) for name in sorted(used)},
            return_elements=[t.name for t in asked],
            name="step",
        )
        found = given | {t.name: new for t, new in zip(asked, made, strict=True)}
        return [None if t is None else found[t.name] for t in wanted]


def flat(structure: Structure) -> list[tf.Tensor]:
    """Its tensors: a batch, like a gradient, may hold `None`."""
    return [t for t in tf.nest.flatten(structure) if t is not None]


def _pairs(tensors: Sequence[tf.Tensor], values: Structure) -> dict[str, tf.Tensor]:
    # A shorter structure stands for the first of the tensors.
    return {
        tensor.name: value for tensor, value in zip(tensors, flat(values), strict=False)
    }


def _is_safe(graph: FuncGraph, graph_def: GraphDef) -> bool:
    """Whether parts of the graph may be left out, and others made twice."""
    changes = any(
        op.op_def.is_stateful and op.type not in _READS for op in graph.get_operations()
    )
    return not (changes or any(k.endswith(CONTROL_FLOW) for k in types(graph_def)))
