"""What is found out about a problem before its loops are compiled.

Its parts are traced once. The graphs tell which state the inner objective
changes, and whether they hold operations whose derivatives TensorFlow gets
wrong or whose values cannot be replayed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from far_ho_tf._types import Gradient, Variable
from far_ho_tf.checks import warn_user
from far_ho_tf.graphs import search
from far_ho_tf.graphs.fingerprint import fingerprint
from far_ho_tf.hyperparameters.hyperparameter import unlisted
from far_ho_tf.notices import tell
from far_ho_tf.problem import jumps, kinks
from far_ho_tf.problem.faults import AVOIDS_XLA, FAULTS, REFUSED, REFUSED_BY_XLA, WARNED
from far_ho_tf.problem.interfaces import Problem
from far_ho_tf.problem.parts import Part, assigned_resources, parts_of, roots_among
from far_ho_tf.variables.identity import find, path_of


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
        graphs: Mapping from the names of the parts to their `FuncGraph`s.
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
    graphs: Mapping[str, FuncGraph] = {}

    def fingerprints(self) -> dict[str, str]:
        """Digests of what the parts compute, the same in every process; by name."""
        return {name: fingerprint(graph) for name, graph in self.graphs.items()}


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
    parts, scope, gradients = parts_of(problem)
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
    inner, outer = (assigned_resources(part.graph) for part in parts[:2])
    assigned = scope.assigned + inner
    _check_assigned(problem, assigned)
    for part in parts:
        _check_reads(part, problem)
    _refuse_floating("inner_objective", inner, parts[:2])
    _refuse_floating("outer_objective", outer, parts[1:2])
    _check_dependence(problem, unread)
    _check_hyperparameters(problem, parts, assigned)
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
            parts[1].graph, roots_among(parts[1].graph, problem.variables, 0)
        ),
        symmetric=not (
            scope.reads_again
            or _differentiated(operations, "IdentityN")
            or any(_reads_rows_again(gradient) for gradient in gradients)
        ),
        graphs={part.name: part.graph for part in parts},
    )


def _named(part: Part, operation: search.Operation) -> str:
    """A `search.Operation` in words, with the user's line where it is known."""
    try:
        made = part.graph.get_operation_by_name(operation.name)
    except KeyError:  # In a function that the graph calls.
        return f"{operation.type} (`{operation.name}`)"
    return jumps.named([made])  # pyright: ignore[reportArgumentType]


def _check_jumps(part: Part, problem: Problem) -> None:
    """Warns of hyperparameters that make a part jump; refuses rates of dropout."""
    may_jump = jumps.may_jump(part)
    may_bend = part.name == "inner_objective" and kinks.may_matter(part)
    if not (may_jump or may_bend):
        return
    variables, hyperparameters = problem.variables, problem.hyperparameters
    assigned = assigned_resources(part.graph) + [
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


def _check_hyperparameters(
    problem: Problem, parts: list[Part], assigned: list[Variable]
) -> None:
    """Refuses a hyperparameter that no part reads, and an outer objective of nothing.

    What is read, but has no effect, is found where it is differentiated.
    """
    for index, variable in enumerate(problem.hyperparameters):
        roots = [root for part in parts for root in part.roots_of[index]]
        if not any(root.consumers() for root in roots):
            raise ValueError(no_dependence(variable, problem.hyperparameters))
    outer = parts[1].graph
    roots = roots_among(outer, problem.variables + problem.hyperparameters, 0)
    roots += roots_among(outer, assigned, len(outer.inputs))
    if not search.reads(outer, roots):
        raise ValueError(outer_of_nothing(problem.variables))


def no_dependence(variable: Variable, hyperparameters: list[Variable]) -> str:
    """What is said of a hyperparameter that nothing depends on."""
    return (
        f"Nothing depends on the hyperparameter `{path_of(variable)}`: neither the "
        "gradient of the inner objective nor the dynamics, the initial values or the "
        "outer objective. It may be read by a comparison or rounding only, which has "
        "no derivative; or as a plain number, by float(), by arithmetic outside of the "
        "objective, by a layer that keeps such (BatchNormalization); or by a "
        "regularizer whose penalty the inner objective leaves out, which "
        "sum(model.losses) adds. "
        f"Received: hyperparameters={[path_of(v) for v in hyperparameters]}"
    )


def outer_of_nothing(variables: list[Variable]) -> str:
    """What is said of an outer objective that depends on nothing."""
    return (
        "`outer_objective` does not depend, by anything that has a derivative, "
        "on the trained variables or the hyperparameters. Received variables: "
        f"{[path_of(variable) for variable in variables]}"
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
