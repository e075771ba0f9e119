"""What the parts of a run take: bytes and multiplications, told from traced graphs."""

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.graphs import search
from far_ho_tf.graphs.functions import TRACING, specs
from far_ho_tf.graphs.peak_memory import bytes_of, is_told, needed, peak
from far_ho_tf.hypergradients.program import Buffers, Inputs, Settings
from far_ho_tf.hypergradients.run import Run
from far_ho_tf.patches.kernels import no_kernel_rewrites
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import read

_R = TypeVar("_R")


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

    def bytes(self, compiler: str) -> int:
        """Those for "graph" or "xla"."""
        return self.in_xla if compiler == "xla" else self.in_graph


def kept_with_problem(function: Callable[..., _R]) -> Callable[..., _R]:
    """A function of a problem whose results are kept as long as the problem lives."""
    found = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def call(problem: PureProblem, *arguments: Hashable) -> _R:
        results = found.setdefault(problem, {})
        if arguments not in results:
            results[arguments] = function(problem, *arguments)
        return results[arguments]

    return call


@kept_with_problem
def state_bytes(problem: PureProblem) -> int:
    """The size of a state: variables, slots and what else a step changes."""
    return bytes_of(problem.state_specs())


@kept_with_problem
def of_step(problem: PureProblem) -> Needs:
    """The `Needs` of a training step."""
    return traced(
        problem,
        lambda run, state: run.step(tf.constant(0), state),
        problem.state_specs(),
    )


def traced(
    problem: PureProblem,
    function: Callable[[Any, Structure], Structure],
    states: Structure,
    make_run: Callable[..., Run] = Run,
) -> Needs:
    """The `Needs` of a function of a run and of a structure of states.

    Args:
        problem: A `PureProblem`.
        function: Callable(run, states) -> a structure of tensors.
        states: Structure of `tf.TensorSpec`s.
        make_run: Callable(problem, settings, inputs) -> a `Run`.
    """
    runs = []
    # "compiled", as steps are then no calls, within which `peak` does not look.
    settings = Settings(Buffers(1), restart=False, keep_tangents=False, compiled=True)

    def call(
        states: Structure,
        hyperparameters: list[tf.Tensor],
        inner: Structure,
        step: tf.Tensor,
    ) -> Structure:
        inputs = Inputs(hyperparameters, None, None, inner, (), step, step, step)  # pyright: ignore[reportArgumentType]
        runs.append(make_run(problem, settings, inputs))
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
        bytes_of(runs[0].kept),
        complete=all(map(is_told, parts)),
    )
