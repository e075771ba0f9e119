"""What the parts of a run take: bytes and multiplications, told from traced graphs."""

import collections
from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.autodiff import floating
from far_ho_tf.checks import require
from far_ho_tf.hypergradients.base import Inputs, Settings
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.integers import undo_kick
from far_ho_tf.hypergradients.reverse_run import ReverseRun
from far_ho_tf.hypergradients.tangents import Directions, Propagation
from far_ho_tf.preflight import graph_search
from far_ho_tf.variables import read

# What gives its input on, or makes nothing: no memory of its own.
_VIEWS = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient")
_ELEMENTWISE = (
    *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg", "Square", "Sqrt"),
    *("Rsqrt", "Exp", "Log", "Pow", "Tanh", "TanhGrad", "Sigmoid", "SigmoidGrad"),
    *("Relu", "ReluGrad", "Select", "SelectV2", "Maximum", "Minimum", "Abs", "Sign"),
    *("Cast", "BroadcastTo", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal"),
)
_NOTHING = ("Const", "Placeholder", "NoOp", "ReadVariableOp", "Shape", "ZerosLike")


class Needs(NamedTuple):
    """What a part of a run takes.

    Attributes:
        in_graph, in_xla: Bytes that it holds at most, with the states that it is
            given, but without data; see `peak`.
        multiplications: Those of its matrix products and convolutions.
    """

    in_graph: int
    in_xla: int
    multiplications: int

    def bytes(self, compiler):
        """Those for "graph" or "xla"."""
        return self.in_xla if compiler == "xla" else self.in_graph


def state_bytes(problem):
    """The size of a state: variables, slots and what else a step changes."""
    return bytes_of(_state(problem))


def of_step(problem):
    """The `Needs` of a training step."""
    return problem.cached(
        "needs of a step",
        lambda: _trace(
            problem,
            lambda run, state: run.step(tf.constant(0), state),
            _state(problem),
        ),
    )


def of_reverse_step(problem):
    """The `Needs` of a step back, the training step that it repeats included."""

    def pull(run, state_and_cotangent):
        state, cotangent = state_and_cotangent
        choice = tf.nest.map_structure(
            lambda spec: tf.zeros(spec.shape, spec.dtype), problem.dynamics.choices
        )
        return run.pull(tf.constant(0), state, choice, cotangent)

    def trace():
        state = _state(problem)
        cotangent = state._replace(extra=floating(state.extra))
        return _trace(problem, pull, (state, cotangent))

    return problem.cached("needs of a reverse step", trace)


def of_tangents(problem, count):
    """The `Needs` of a training step with so many tangents."""

    def propagate(run, state_and_tangents):
        return _propagation(problem, run.hyperparameters, count).step(
            *state_and_tangents, tf.constant(0), run.batch(0)
        )

    def trace():
        state = _state(problem)
        own = read(problem.hyperparameters)
        tangents = _propagation(problem, own, count).zeros(state)
        return _trace(problem, propagate, (state, tangents))

    return problem.cached(f"needs of {count} tangents", trace)


def _propagation(problem, hyperparameters, count):
    directions = Directions(hyperparameters).units(0, count)
    return Propagation(problem, hyperparameters, directions, Dependence(problem))


def elements(problem):
    """The number of weights."""
    return sum(variable.shape.num_elements() for variable in problem.start.variables)


def of_reversal(problem):
    """Bytes that a step back of integers holds at most; see `integers`."""
    shapes = [variable.shape for variable in problem.start.variables]
    each = [tf.TensorSpec(shape, tf.int64) for shape in shapes]
    ratios = [tf.TensorSpec([len(shapes)], tf.int64)] * 2
    traced = tf.function(undo_kick, autograph=False)
    graph = traced.get_concrete_function(each, each, each, ratios).graph
    return peak(graph, graph.inputs[: 3 * len(shapes)], fused=True)


def states_within(problem, count, budget):
    """How many states fit into a budget.

    Args:
        problem: A `BilevelProblem`.
        count: Integer, the number of states that there are.
        budget: Integer, bytes.

    Raises:
        ValueError: If it is less than one state and what a step needs.
    """
    size = state_bytes(problem)
    fixed = of_reverse_step(problem).in_graph + size  # One slot more than states.
    fits = (budget - fixed) // size
    require(
        fits >= 1,
        "`memory_budget` must leave room for one state and a step's own needs, "
        f"{fixed + size} bytes.",
        memory_budget=budget,
    )
    return min(count, fits)


def bytes_of(structure):
    """The bytes of a structure of tensors."""
    return sum(_size(tensor) for tensor in tf.nest.flatten(structure))


def _state(problem):
    slots = problem.dynamics.initial_slots(problem.start.variables)
    return problem.start._replace(slots=slots)


def _trace(problem, function, states):
    """The `Needs` of a function of a run and of a structure of states."""
    settings = Settings(1, restart=False, keep_tangents=False)

    def call(states, hyperparameters, inner):
        inputs = Inputs(hyperparameters, None, None, inner, (), tf.constant(0), None)
        return function(ReverseRun(problem, settings, inputs), states)

    graph = (
        tf.function(call, autograph=False)
        .get_concrete_function(
            _specs(states),
            _specs(read(problem.hyperparameters)),
            problem.inner_data.prepare(0, 1),
        )
        .graph
    )
    pruned = {operation.name for operation in _needed(graph)}
    found = [op for op in graph_search.operations(graph, []) if op.name in pruned]
    given = graph.inputs[: len(tf.nest.flatten(states))]
    return Needs(
        peak(graph, given, fused=False),
        peak(graph, given, fused=True),
        sum(operation.multiplications for operation in found),
    )


def _specs(structure):
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure)


def peak(graph, given, fused):
    """The most bytes that a graph's operations hold at any time, one by one.

    An operation whose result is as large as an input that nothing else needs writes
    over that input; matrix products and the like do not. XLA makes one operation of
    several that go element by element, and writes over what a step is given, which
    a graph holds until the step ends.

    Args:
        graph: A `FuncGraph` whose shapes are known.
        given: List of those of its inputs that count.
        fused: Whether XLA compiles it.
    """
    operations = _needed(graph)
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
        most = max(most, held + sum(made.values()) - reused)
        kept = {ref: size for ref, size in made.items() if ref in last}
        live |= kept
        held += sum(kept.values()) - freed
    return most


def _uses(graph, operations, fused):
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


def _origins(origins, tensor):
    return origins.get(tensor.ref(), {tensor.ref()})


def _needed(graph):
    """The operations that the outputs of a graph come from, in order."""
    needed, found = set(), [tensor.op for tensor in graph.outputs]
    while found:
        operation = found.pop()
        if operation not in needed:
            needed.add(operation)
            found.extend(tensor.op for tensor in operation.inputs)
    return [operation for operation in graph.get_operations() if operation in needed]


def _needs_its_inputs(operation):
    return any(kind in operation.type for kind in ("MatMul", "Conv", "Pool", "Einsum"))


def _size(tensor):
    if tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    return (tensor.shape.num_elements() or 0) * tensor.dtype.size
