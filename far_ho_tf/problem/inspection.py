"""What is found out about a problem before its loops are compiled.

Its parts are traced once. The graphs tell which state the inner objective
changes, and whether they hold operations whose derivatives TensorFlow gets
wrong or whose values cannot be replayed.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf._types import Gradient, Structure, Variable
from far_ho_tf.checks import warn_user
from far_ho_tf.data.source import Source
from far_ho_tf.graphs import search
from far_ho_tf.hyperparameters.hyperparameter import unlisted
from far_ho_tf.notices import tell
from far_ho_tf.patches.custom_gradients import Meeting, meeting
from far_ho_tf.problem import jumps, kinks, rules
from far_ho_tf.problem.faults import AVOIDS_XLA, FAULTS, REFUSED, REFUSED_BY_XLA, WARNED
from far_ho_tf.problem.interfaces import Problem
from far_ho_tf.variables.derivatives import Slices, dense
from far_ho_tf.variables.identity import dtype_of, find, path_of, preserved, read
from far_ho_tf.variables.state import State
from far_ho_tf.variables.substitution import SubstitutionScope


class Report(NamedTuple):
    """What the traced parts of a problem tell.

    Attributes:
        assigned: Variables that the inner objective assigns.
        unread: List of the trained variables that it does not read.
        xla_faults: List of sentences: why XLA would make it wrong.
        xla_differences: List of sentences: why XLA would make it different.
        largest_product: Multiplications in the inner objective's largest
            matrix product.
        largest_convolution: Those in its largest convolution.
        weights: The number of elements of all trained variables.
        has_control_flow: Whether loops or branches of the inner objective depend on
            variables or hyperparameters.
        loop: Type of a loop that derivatives of the inner objective go through; an
            empty string where there is none.
        outer_reads: Whether the outer objective reads a trained variable.
        symmetric: Whether its second derivatives commute for certain: they go through
            no `tf.custom_gradient`, and it does not read again what it assigned, nor
            rows of a variable again whose gradient is `Slices`.
    """

    assigned: list[Variable]
    unread: list[Variable]
    xla_faults: list[str]
    xla_differences: list[str]
    largest_product: int
    largest_convolution: int
    weights: int
    has_control_flow: bool
    loop: str
    outer_reads: bool
    symmetric: bool


def inspect(problem: Problem) -> Report:
    """Traces the parts of a problem and searches their graphs.

    Second derivatives are taken of the inner objective only; of the outer
    objective, the dynamics and the initial values first ones.

    Args:
        problem: A `PureProblem`.

    Returns:
        A `Report`.

    Raises:
        ValueError: If the inner objective does not depend on the variables, or
            a part holds an operation that would make the hypergradient wrong
            or assigns a floating `tf.Variable`.
    """
    tell("tracing …")
    parts, scope, gradients = _trace(problem)
    unread = [v for v, g in zip(problem.variables, gradients, strict=True) if g is None]
    sentences = {REFUSED: [], REFUSED_BY_XLA: [], AVOIDS_XLA: [], WARNED: []}
    for part in parts:
        for fault in FAULTS:
            found = [op for op in part.operations if fault.matches(op)]
            if found and fault.order in part.orders:
                sentences[fault.verdict].append(
                    f"`{part.name}` holds {_named(part, found[0])}: {fault.problem}. "
                    f"Remedy: {fault.remedy}."
                )
    if sentences[REFUSED]:
        raise ValueError(" ".join(sentences[REFUSED]))
    for sentence in sentences[WARNED]:
        warn_user(sentence)
    for part in parts:
        _check_jumps(part, problem)
    _warn_of_unlisted(parts, problem)
    # The other parts assign bare tf.Variables to replace them.
    inner, outer = (_assigned_resources(part.graph) for part in parts[:2])
    assigned = scope.assigned + inner
    _check_assigned(problem, assigned)
    for part in parts:
        _check_reads(part, problem)
    _refuse_floating("inner_objective", inner, parts[:2])
    _refuse_floating("outer_objective", outer, parts[1:2])
    _check_dependence(problem, unread)
    operations = parts[0].operations
    return Report(
        assigned=assigned,
        unread=unread,
        xla_faults=sentences[REFUSED_BY_XLA],
        xla_differences=sentences[AVOIDS_XLA],
        largest_product=_largest(operations, "MatMul"),
        largest_convolution=_largest(operations, "Conv"),
        weights=sum(variable.shape.num_elements() for variable in problem.variables),
        has_control_flow=any(
            _differentiated(operations, kind) for kind in search.CONTROL_FLOW
        ),
        loop=next(iter(_differentiated(operations, "While")), ""),
        outer_reads=search.reads(
            parts[1].graph, _roots(parts[1].graph, problem.variables, 0)
        ),
        symmetric=not (
            scope.reads_again
            or _differentiated(operations, "IdentityN")
            or any(_reads_rows_again(gradient) for gradient in gradients)
        ),
    )


def _named(part: "Part", operation: search.Operation) -> str:
    """A `search.Operation` in words, with the user's line where it is known."""
    try:
        made = part.graph.get_operation_by_name(operation.name)
    except KeyError:  # In a function that the graph calls.
        return f"{operation.type} (`{operation.name}`)"
    return jumps.named([made])  # pyright: ignore[reportArgumentType]


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


def _trace(
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

    found = []

    def traced_call(*inputs: Structure) -> Structure:
        made, met = call(*inputs)
        found.append(met)  # pyright: ignore[reportAttributeAccessIssue]
        return made

    specs = [
        tf.TensorSpec(variable.shape, dtype_of(variable)) for variable in variables
    ]
    specs = specs, prepared, tf.TensorSpec([], tf.int32)
    traced = tf.function(traced_call, autograph=False).get_concrete_function(*specs)
    roots = _roots(traced.graph, variables, 0)
    met = found[0]
    if source and (met.calls or met.inside):
        inputs = read(variables), source.example(prepared), tf.constant(0)
        with preserved(_assigned_resources(traced.graph)):
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
        _roots(traced.graph, [hyperparameter], count + index)
        for index, hyperparameter in enumerate(problem.hyperparameters)
    ]
    found = traced.graph, list(itertools.chain(*roots_of)), operations
    return Part(name, *found, orders, forward, gradient, example, captured, roots_of)


def _roots(graph: FuncGraph, variables: list[Variable], first: int) -> list[tf.Tensor]:
    """The tensors of a graph by which variables come in, its inputs from a first on."""
    return list(graph.inputs[first : first + len(variables)]) + [
        internal
        for external, internal in graph.captures
        if any(external is variable.handle for variable in variables)
    ]


def _check_jumps(part: Part, problem: Problem) -> None:
    """Warns of hyperparameters that make a part jump; refuses rates of dropout."""
    may_jump = jumps.may_jump(part)
    may_bend = part.name == "inner_objective" and kinks.may_matter(part)
    if not (may_jump or may_bend):
        return
    variables, hyperparameters = problem.variables, problem.hyperparameters
    assigned = _assigned_resources(part.graph) + [
        variable
        for variable in variables + hyperparameters
        if isinstance(variable, tf.Variable)
    ]
    names = variables, hyperparameters, assigned
    found = jumps.find(part, *names) if may_jump else []
    for jump in found:
        sentence = f"`{part.name}` {jumps.describe(jump)}"
        if jumps.is_dropout(jump):
            raise ValueError(sentence)
        warn_user(sentence)
    if may_bend:
        told = [variable for jump in found for variable in jump.variables]
        for sentence in kinks.find(part, *names, told):
            warn_user(sentence)


def _warn_of_unlisted(parts: list[Part], problem: Problem) -> None:
    """Warns of `Hyperparameter`s that parts read and the problem does not tune."""
    readers = {}
    for part in parts:
        by_data = unlisted(part.data, problem.hyperparameters)
        captured = [external for external, _ in part.graph.captures]
        for variable in unlisted(captured, problem.hyperparameters) + by_data:
            is_of_data = find(variable, by_data) is not None
            name = part.name.replace("objective", "data") if is_of_data else part.name
            readers.setdefault(id(variable), (variable, []))[1].append(name)
    for variable, names in readers.values():
        parts = " and ".join(f"`{name}`" for name in dict.fromkeys(names))  # pyright: ignore[reportAssignmentType]
        warn_user(
            f"`hyperparameters` does not list `{path_of(variable)}`, a Hyperparameter "
            f"that is read by {parts}: there it is a constant. Remedy: list it; or, if "
            "it is to stay fixed, give a number or a keras.Variable(trainable=False)."
        )


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
    changed = _assigned_resources(source.graph(prepared))
    if changed:
        raise ValueError(
            f"`inner_data` changes `{path_of(changed[0])}`: a batch must be a function "
            "of its step, since it is made more than once. Remedy: "
            "tf.random.stateless_* with a seed made of the step; or layers that have a "
            "state in the objective."
        )


def _check_reads(part: Part, problem: Problem) -> None:
    """Refuses reads that substitution cannot replace, and so would be stale."""
    trained = problem.variables
    unreplaced = [
        variable
        for variable in trained + problem.hyperparameters
        if isinstance(variable, keras.Variable)
        or (part.name == "dynamics" and find(variable, trained) is not None)
    ]
    for variable in unreplaced:
        if any(handle is variable.handle for handle, _ in part.graph.captures):
            why = (
                "a schedule may depend on the step and on hyperparameters only"
                if part.name == "dynamics"
                else "within a keras.StatelessScope of its own (as in "
                "`model.stateless_call`), where its value would be stale"
            )
            raise ValueError(f"`{part.name}` reads `{path_of(variable)}`: {why}.")


def _check_assigned(problem: Problem, assigned: list[Variable]) -> None:
    """Refuses objectives that assign what the dynamics or the outer loop move."""
    for variable in problem.variables + problem.hyperparameters:
        if find(variable, assigned) is not None:
            raise ValueError(
                f"`inner_objective` assigns `{path_of(variable)}`, which is a trained "
                "variable or a hyperparameter: only other state may be assigned (a "
                "SpectralNormalization layer assigns its kernel)."
            )


def _check_dependence(problem: Problem, unread: list[Variable]) -> None:
    paths = ", ".join(f"`{path_of(variable)}`" for variable in unread)
    if len(unread) == len(problem.variables):
        raise ValueError(
            "`inner_objective` does not depend on any of the `variables`. "
            f"Received: {paths}"
        )
    if unread:
        warn_user(
            "`inner_objective` does not depend on these variables, which therefore "
            f"stay where they are: {paths}"
        )


def _reads_rows_again(gradient: Gradient | None) -> bool:
    """Whether a tape put together what several readings of rows gave."""
    by_rows = isinstance(gradient, tf.IndexedSlices)
    return by_rows and gradient.indices.op.type == "ConcatV2"


def _largest(operations: list[search.Operation], kind: str) -> int:
    counts = [op.multiplications for op in operations if kind in op.type]
    return max(counts, default=0)


def _differentiated(operations: list[search.Operation], kind: str) -> list[str]:
    """The types, of a kind, of operations that read what depends on the variables."""
    return [op.type for op in operations if kind in op.type and any(op.depends)]


def _assigned_resources(graph: FuncGraph) -> list[tf.Variable]:
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


def _refuse_floating(name: str, assigned: list[tf.Variable], parts: list[Part]) -> None:
    """Refuses assignments that TensorFlow would have to differentiate.

    Not of what only goes into itself, such as statistics that no objective uses.

    Args:
        name: That of the objective.
        assigned: List of the tf.Variables that it assigns.
        parts: List of the `Part`s that may use them.
    """
    for variable in assigned:
        used = [
            part.name
            for part in parts
            for external, internal in part.graph.captures
            if external is variable.handle and search.influences(part.graph, internal)
        ]
        if variable.dtype.is_floating and used:
            raise ValueError(
                f"`{name}` assigns the floating tf.Variable `{path_of(variable)}`, and "
                f"what `{used[0]}` returns depends on it, but TensorFlow does not "
                "differentiate assignments of a tf.Variable. Remedy: make it a "
                "keras.Variable, whose assignments are differentiated, such as by a "
                "layer of Keras 3; or do not use it (training=True in both objectives, "
                "where it is a moving average)."
            )
