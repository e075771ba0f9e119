"""The parts of a problem, traced: what is searched before the run."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf._types import Gradient, Structure, Variable
from far_ho_tf.checks import warn_user
from far_ho_tf.data.source import Source
from far_ho_tf.graphs import search
from far_ho_tf.patches.custom_gradients import Meeting, meeting
from far_ho_tf.problem import rules
from far_ho_tf.problem.interfaces import Problem
from far_ho_tf.variables.derivatives import Slices, dense
from far_ho_tf.variables.identity import dtype_of, path_of, preserved, read
from far_ho_tf.variables.state import State
from far_ho_tf.variables.substitution import SubstitutionScope


class Part(NamedTuple):
    """A traced part of a problem.

    Attributes:
        name: The argument of `BilevelProblem` that it comes from.
        graph: Its `FuncGraph`.
        roots: List of its tensors by which hyperparameters come in.
        operations: List of `search.Operation`s.
        orders: The orders of fault that matter in it; see `Fault`.
        forward: Callable(values, hyperparameters, prepared, step) -> what it makes,
            before derivatives are taken of it.
        gradient: Callable, as `forward`: of the inner objective, the gradient by which
            the weights move.
        example: What its data may be made from, as `forward` takes it.
        data: List of what these read: the handles of variables, and other tensors.
        roots_of: List of lists: the roots of each hyperparameter.
    """

    name: str
    graph: FuncGraph
    roots: list[tf.Tensor]
    operations: list[search.Operation]
    orders: tuple[int, ...]
    forward: Callable[..., Structure]
    gradient: Callable[..., Structure]
    example: Structure
    data: list[tf.Tensor]
    roots_of: list[list[tf.Tensor]]


def parts_of(
    problem: Problem,
) -> tuple[list[Part], SubstitutionScope, list[Gradient | None]]:
    """Traces all parts.

    Returns:
        List of `Part`s, the inner objective first; the `SubstitutionScope` of
        its call, and its gradients.
    """
    kept = {}

    def inner(
        values: list[tf.Tensor], hyperparameters: list[tf.Tensor], batch: Structure
    ) -> list[tf.Tensor | None]:
        kept["gradients"], kept["scope"] = problem.traced_gradients(
            values, hyperparameters, batch
        )
        return [dense(gradient) for gradient in kept["gradients"]]

    def outer(
        values: list[tf.Tensor], hyperparameters: list[tf.Tensor], batch: Structure
    ) -> tf.Tensor:
        return problem.traced_outer_value(values, hyperparameters, batch)

    slots = problem.dynamics.initial_slots(read(problem.variables))

    def update(
        values: list[tf.Tensor], hyperparameters: list[tf.Tensor], step: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[Structure]]:
        state = State(values, tf.nest.map_structure(tf.zeros_like, slots), [])
        choice = tf.nest.map_structure(
            lambda spec: tf.zeros(spec.shape, spec.dtype), problem.dynamics.choices
        )
        row = tf.zeros([1], tf.int32)
        gradients = [
            Slices(tf.gather(value, row), row)
            if isinstance(gradient, tf.IndexedSlices)
            else value
            for value, gradient in zip(values, kept["gradients"], strict=True)
        ]
        return problem.update(state, gradients, hyperparameters, step, choice)

    def initial(
        values: list[tf.Tensor], hyperparameters: list[tf.Tensor], step: tf.Tensor
    ) -> State:
        return problem.initial_state(State(values, [], []), hyperparameters, step)

    parts = [
        _part(problem, "inner_objective", inner, (0, 1, 2), problem.inner_data),
        _part(problem, "outer_objective", outer, (1,), problem.outer_data),
        _part(problem, "dynamics", update, (0, 1)),
        _part(problem, "initial_values", initial, (1,)),
    ]
    return parts, kept["scope"], kept["gradients"]


def _part(
    problem: Problem,
    name: str,
    function: Callable[..., Structure],
    orders: tuple[int, ...],
    source: Source | None = None,
) -> Part:
    """Traces a function of variables, hyperparameters and a batch or step."""
    variables = problem.variables + problem.hyperparameters
    count = len(problem.variables)
    prepared = source.prepare(0, 1) if source else ()
    captured = list(source.captured(prepared)) if source else []
    _check_data(name.replace("objective", "data"), captured, variables)
    if name == "inner_objective":
        _check_replay(source, prepared)  # pyright: ignore[reportArgumentType]

    def call(
        values: list[tf.Tensor],
        prepared: Structure,
        step: tf.Tensor,
        with_tape: bool = False,
    ) -> tuple[Structure, Meeting]:
        batch_or_step = source.batch(prepared, step) if source else step
        sources = values[count if name == "inner_objective" else 0 :]
        with meeting(sources if with_tape else None) as met:
            return function(values[:count], values[count:], batch_or_step), met

    meetings = []

    def traced_call(*inputs: Structure) -> Structure:
        with _drawing_told(name):
            made, met = call(*inputs)
        meetings.append(met)
        return made

    specs = [
        tf.TensorSpec(variable.shape, dtype_of(variable)) for variable in variables
    ]
    specs = specs, prepared, tf.TensorSpec([], tf.int32)
    traced = tf.function(traced_call, autograph=False).get_concrete_function(*specs)
    roots = roots_among(traced.graph, variables, 0)
    met = meetings[0]
    if source and (met.calls or met.inside):
        inputs = read(variables), source.example(prepared), tf.constant(0)
        with preserved(assigned_resources(traced.graph)):
            if met.inside:
                rules.check(name, met.inside, call, inputs)
            problem.keep_rules(name, rules.not_differentiable(call, inputs))
    operations = search.operations(traced.graph, roots)

    def forward(
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        prepared: Structure,
        step: tf.Tensor,
    ) -> Structure:
        if not source:  # In its first step, a schedule may do nothing.
            return function(values, hyperparameters, step + 1)
        batch = source.batch(prepared, step)
        return problem.forward_value(name, values, hyperparameters, batch)

    def gradient(
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        prepared: Structure,
        step: tf.Tensor,
    ) -> Structure:
        return function(values, hyperparameters, source.batch(prepared, step))  # pyright: ignore[reportOptionalMemberAccess]

    example = source.example(prepared) if source else ()
    roots_of = [
        roots_among(traced.graph, [hyperparameter], count + index)
        for index, hyperparameter in enumerate(problem.hyperparameters)
    ]
    return Part(
        name,
        traced.graph,
        roots=list(itertools.chain(*roots_of)),
        operations=operations,
        orders=orders,
        forward=forward,
        gradient=gradient,
        example=example,
        data=captured,
        roots_of=roots_of,
    )


def _state_of_numpy() -> tuple[int, int, bytes]:
    """That of the generator behind `np.random.rand` and the like."""
    whole = np.random.get_state(legacy=False)
    state = whole["state"]
    return state["pos"], whole["has_gauss"], state["key"].tobytes()


@contextlib.contextmanager
def _drawing_told(name: str) -> Iterator[None]:
    """Warns where NumPy's own random numbers are drawn within, which is a trace."""
    before = _state_of_numpy()
    yield
    if _state_of_numpy() == before:
        return
    data = name.replace("objective", "data")
    warn_user(
        f"`{name}` or `{data}` draws random numbers by NumPy: once, while it is "
        "traced, so that they are the same in all steps. Remedy: keras.random with a "
        "keras.random.SeedGenerator in the objective; in data "
        "tf.random.stateless_uniform with a seed made of the step, or far.Batches."
    )


def roots_among(
    graph: FuncGraph, variables: list[Variable], first: int
) -> list[tf.Tensor]:
    """The tensors of a graph by which variables come in, its inputs from a first on."""
    return list(graph.inputs[first : first + len(variables)]) + [
        internal
        for external, internal in graph.captures
        if any(external is variable.handle for variable in variables)
    ]


def _check_data(name: str, handles: list[tf.Tensor], variables: list[Variable]) -> None:
    """Refuses data that read variables: no derivative would go through them."""
    for variable in variables:
        if any(handle is variable.handle for handle in handles):
            raise ValueError(
                f"`{name}` reads `{path_of(variable)}`, but nothing is differentiated "
                "through data. Apply it in the objective instead."
            )


def _check_replay(source: Source, prepared: Structure) -> None:
    """Refuses data of the steps that would be others when they are made again."""
    changed = assigned_resources(source.graph(prepared))
    if changed:
        raise ValueError(
            f"`inner_data` changes `{path_of(changed[0])}`: a batch must be a function "
            "of its step, since it is made more than once. Remedy: "
            "tf.random.stateless_* with a seed made of the step; or layers that have a "
            "state in the objective."
        )


def assigned_resources(graph: FuncGraph) -> list[tf.Variable]:
    """The tf.Variables that a graph assigns."""
    captured = [
        (variable, internal)
        for external, internal in graph.captures
        for variable in graph.variables
        if variable.handle is external
    ]
    flags = search.assigned(graph, [internal for _, internal in captured])
    return [
        variable for (variable, _), flag in zip(captured, flags, strict=True) if flag
    ]
