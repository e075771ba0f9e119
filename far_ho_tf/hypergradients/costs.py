"""What the parts of a run take: bytes and multiplications, told from traced graphs."""

import functools
import weakref
from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.graphs import search
from far_ho_tf.graphs.functions import TRACING, specs
from far_ho_tf.graphs.peak_memory import bytes_of, is_told, needed, peak
from far_ho_tf.hypergradients.compiler import Buffers, Inputs, Settings
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.forward.tangents import Directions, Propagation
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.split_step import Residuals
from far_ho_tf.patches.kernels import no_kernel_rewrites
from far_ho_tf.variables.derivatives import floating
from far_ho_tf.variables.identity import read


class Needs(NamedTuple):
    """What a part of a run takes.

    Attributes:
        in_graph, in_xla: Bytes that it holds at most, with the states that it is
            given, but without data; see `peak`.
        multiplications: Those of its matrix products and convolutions.
        kept: Bytes that the loop forwards keeps for it, beside the state.
        complete: Whether there was nothing that cannot be told, such as how often a
            loop turns.
    """

    in_graph: int
    in_xla: int
    multiplications: int
    kept: int
    complete: bool

    def bytes(self, compiler):
        """Those for "graph" or "xla"."""
        return self.in_xla if compiler == "xla" else self.in_graph


def _kept(function):
    """A function of a problem whose results are kept as long as the problem lives."""
    kept = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def call(problem, *arguments):
        results = kept.setdefault(problem, {})
        if arguments not in results:
            results[arguments] = function(problem, *arguments)
        return results[arguments]

    return call


@_kept
def state_bytes(problem):
    """The size of a state: variables, slots and what else a step changes."""
    return bytes_of(problem.state_specs())


@_kept
def of_step(problem):
    """The `Needs` of a training step."""
    return _trace(
        problem,
        lambda run, state: run.step(tf.constant(0), state),
        problem.state_specs(),
    )


@_kept
def of_reverse_step(problem, keeping):
    """The `Needs` of a step back, with what it repeats of the training step.

    Args:
        problem: A `PureProblem`.
        keeping: See `ReverseRun`.
    """

    def visit(run, state_and_carry):
        choice = _zeros(problem.dynamics.choices)
        state, carry = state_and_carry
        kept = Residuals(state, _zeros(run.split.kept)) if run.split else None
        return run.visit(tf.constant(0), state, choice, carry, kept)

    state = problem.state_specs()
    cotangent = state._replace(extra=floating(state.extra))
    carry = cotangent, read(problem.hyperparameters)
    return _trace(problem, visit, (state, carry), keeping)


@_kept
def of_tangents(problem, count):
    """The `Needs` of a training step with so many tangents."""

    def propagate(run, state_and_tangents):
        return _propagation(problem, run.hyperparameters, count).step(
            *state_and_tangents, tf.constant(0), run.batch(0)
        )

    state = problem.state_specs()
    tangents = tf.nest.map_structure(
        lambda t: tf.TensorSpec((count, *t.shape), t.dtype),
        state._replace(extra=floating(state.extra)),
    )
    return _trace(problem, propagate, (state, tangents))


def _propagation(problem, hyperparameters, count):
    directions = Directions(hyperparameters).units(0, count)
    return Propagation(problem, hyperparameters, directions, Dependence(problem))


def of_reversal(problem, compiler):
    """Bytes that a step back of integers holds at most, with those that it is given.

    The loop is a graph: it holds the integers that it began with, and the integers and
    cotangents that a step is given until the step ends, beside the new integers, their
    floats, and what a step back needs.
    """
    back = of_reverse_step(problem, None)
    size = state_bytes(problem)
    integers = 3 * problem.report.weights * tf.int64.size
    beyond = back.bytes(compiler) - 2 * size
    if compiler == "xla":
        beyond += size  # A function's results are not written over what it is given.
    return 3 * integers + 2 * size + beyond


def states_within(problem, count, budget):
    """How many states fit into a budget.

    Args:
        problem: A `PureProblem`.
        count: Integer, the number of states that there are.
        budget: Integer, bytes.

    Raises:
        ValueError: If it is less than one state and what a step needs.
    """
    back = of_reverse_step(problem, None)
    require(
        back.complete,
        "`memory_budget` cannot be kept where a step holds loops, or shapes that are "
        "not known: what they take cannot be told. Alternative: a number of states, as "
        "in checkpointing=10.",
        memory_budget=budget,
    )
    size = state_bytes(problem)
    # A quarter more than predicted; and there is one slot more than states.
    fixed = back.in_graph * 5 // 4 + size
    fits = (budget - fixed) // size
    require(
        fits >= 1,
        "`memory_budget` must leave room for one state and a step's own needs, "
        f"{fixed + size} bytes.",
        memory_budget=budget,
    )
    return min(count, fits)


def _zeros(like):
    return tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), like)


def _trace(problem, function, states, keeping=None):
    """The `Needs` of a function of a run and of a structure of states."""
    runs = []
    # "compiled", as steps are then no calls, within which `peak` does not look.
    settings = Settings(Buffers(1), restart=False, keep_tangents=False, compiled=True)

    def call(states, hyperparameters, inner, step):
        inputs = Inputs(hyperparameters, None, None, inner, (), step, step, step)
        runs.append(ReverseRun(problem, settings, inputs, keeping))
        return function(runs[0], states)

    with tf.init_scope():  # Memory is asked for while a run is traced, too.
        sample = problem.inner_data.sample()
    with TRACING, no_kernel_rewrites():
        graph = (
            tf.function(call, autograph=False)
            .get_concrete_function(
                specs(states),
                specs(read(problem.hyperparameters)),
                sample,
                tf.TensorSpec([], tf.int32),
            )
            .graph
        )
    parts = needed(graph)
    pruned = {operation.name for operation in parts}
    found = [op for op in search.operations(graph, []) if op.name in pruned]
    given = graph.inputs[: len(tf.nest.flatten(states))]
    return Needs(
        peak(graph, given, fused=False),
        peak(graph, given, fused=True),
        sum(operation.multiplications for operation in found),
        bytes_of(runs[0].split.kept) if runs[0].split else 0,
        complete=all(map(is_told, parts)),
    )
