"""NaN and infinity: where they began."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.graphs.buffers import capacity
from far_ho_tf.graphs.functions import TRACING, once_traced
from far_ho_tf.hypergradients.causes import cause_of
from far_ho_tf.hypergradients.program import Buffers, Inputs, Outputs, Settings
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.run import stack, write
from far_ho_tf.patches.indices import compiled
from far_ho_tf.patches.kernels import kernel_rewrites
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.derivatives import all_finite, floating
from far_ho_tf.variables.identity import path_of
from far_ho_tf.variables.state import State


class NonFiniteError(FloatingPointError, ValueError):
    """NaN or infinity appeared in the state or in the hypergradient.

    Attributes:
        step: The first step at which it appeared, 0 for the first of the run; for the
            hypergradient, the first step whose derivative has it. `None` where the
            outer objective or the initial values made it, and where no step did: the
            product of their derivatives overflows.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class DivergenceError(NonFiniteError):
    """The outer value exceeded the `outer_limit` that was given.

    It is finite. That it is a `NonFiniteError`, as which it was raised before, holds
    for one release more.
    """


def raise_non_finite(
    problem: PureProblem,
    num_steps: int,
    inputs: Inputs,
    outputs: Outputs,
    restart: bool,
    compiler: str,
    has_tangents: bool,
    first_differentiated: int,
    verify: Callable[[], Any],
) -> NoReturn:
    """Raises a `NonFiniteError` that names the first such place.

    The run is made once more, up to it: in any gradient mode the same plain run.

    Args:
        problem: A `PureProblem`.
        num_steps: Integer T.
        inputs: The `Inputs` of the run.
        outputs: Its `Outputs`, of which some are not finite.
        restart: Whether it began from Φ_0.
        compiler: "xla" or "graph", by which it came out so.
        has_tangents: Whether it propagated tangents. There NaN spreads from one
            hyperparameter to the others (0·∞), so that none can be named.
        first_differentiated: Integer: the first step that was differentiated. What
            goes before, the initial values too, was a constant.
        verify: Callable() that raises what is wrong by the mode's own rules. It is
            asked where a plain run finds nothing.
    """
    prefix = ""
    if inputs.episode is not None:
        first = int(tf.argmin(tf.cast(outputs.finite, tf.int32)))
        inputs = inputs._replace(episode=inputs.episode[first])
        prefix = f"In episode {int(inputs.episode)}: "  # pyright: ignore[reportArgumentType]
    found = None
    for one in dict.fromkeys((compiler, "graph")):  # XLA may compile less of it.
        if found is None:
            with contextlib.suppress(Exception):
                found = _search(
                    problem, num_steps, inputs, restart, one, first_differentiated
                )
    if found is None or found.is_finite():
        verify()
    if found is None:
        raise NonFiniteError(
            f"{prefix}The state, or the hypergradient, is not finite. A plain run, in "
            "search of the step, fails."
        )

    def cause(function: str) -> str:
        # What is wrong is told without it, too.
        with contextlib.suppress(Exception):
            return "" if prefix else _cause(problem, inputs, found, function, compiler)
        return ""

    gradients = None if has_tangents else outputs.hypergradients
    text, step = _told(problem, num_steps, found, gradients, cause)
    raise NonFiniteError(prefix + text, step)


class _Found(NamedTuple):
    """A plain run, which ends at what is not finite.

    Attributes:
        steps: int32: how many steps were made.
        before, state: The `State` before the last of them, and after it.
        inner_values: Vector: the inner objective, for each of them.
        derivative_step: int32: the first step whose derivative is not finite, of those
            that were differentiated; −1 where there is none.
        initial: Whether the derivative of the initial values, if it was taken, is
            finite.
        outer_value: The outer objective.
        outer: Whether its gradient is finite.
    """

    steps: tf.Tensor
    before: State
    state: State
    inner_values: tf.Tensor
    derivative_step: tf.Tensor
    initial: tf.Tensor
    outer_value: tf.Tensor
    outer: tf.Tensor

    def is_finite(self) -> bool:
        """Whether there is nothing that is not."""
        values = self.state, self.inner_values[: self.steps], self.outer_value
        good = self.initial & self.outer & (self.derivative_step < 0)
        return bool(good & all_finite(values))


def _search(
    problem: PureProblem,
    num_steps: int,
    inputs: Inputs,
    restart: bool,
    compiler: str,
    first: int,
) -> _Found:
    """A run in search of what is not finite, as a `_Found` of tensors.

    By the compiler that the run had: XLA has derivatives of its own. Over one replica,
    as batches are whole there.
    """
    xla = compiler == "xla"
    buffers = Buffers(capacity(num_steps))
    settings = Settings(buffers, restart, keep_tangents=False, compiled=xla)

    def build(inputs: Inputs) -> _Found:
        with kernel_rewrites(xla), compiled(xla):
            return _searched(ReverseRun(problem, settings, inputs), first)

    with TRACING:
        return once_traced(build, jit_compile=xla)(inputs)


def _searched(run: ReverseRun, first: int) -> _Found:
    """What `_search` finds, as a graph; steps before the first are constants."""
    start, initial_vjp = run.initial()
    like = start._replace(extra=floating(start.extra))
    ones = tf.nest.map_structure(tf.ones_like, like)
    terms = initial_vjp(ones) if first == 0 else []
    initial = all_finite([g for g in terms if g is not None])
    logs = run.logs()

    def goes_on(
        step: tf.Tensor,
        _: State,
        state: State,
        logs: Structure,
        value: tf.Tensor,
        *others: Structure,
    ) -> tf.Tensor:
        del logs, others
        return (step < run.num_steps) & all_finite([state, value])

    def body(
        step: tf.Tensor,
        _: State,
        state: State,
        logs: Structure,
        value: tf.Tensor,
        derivative_step: tf.Tensor,
    ) -> tuple[Structure, ...]:
        new_state, log = run.step(step, state)
        zero = tf.nest.map_structure(tf.zeros_like, run.hyperparameters)
        derivatives = run.visit(step, state, log.choice, (ones, zero))
        counts = (step >= first) & (derivative_step < 0)  # pyright: ignore[reportOperatorIssue]
        is_first = counts & ~all_finite(derivatives)  # pyright: ignore[reportOperatorIssue]
        derivative_step = tf.where(is_first, step, derivative_step)
        logs = write(logs, step, log)
        return step + 1, state, new_state, logs, log.value, derivative_step

    steps, before, state, logs, _, derivative_step = tf.while_loop(
        goes_on,
        body,
        (0, start, start, logs, tf.zeros([], run.problem.dtype), -1),
        parallel_iterations=1,
    )
    outer_value, cotangent, direct = run.outer(state)
    return _Found(
        steps=steps,
        before=before,
        state=state,
        inner_values=stack(logs.value),
        derivative_step=derivative_step,
        initial=initial,
        outer_value=outer_value,
        outer=all_finite([cotangent, direct]),
    )


def _told(
    problem: PureProblem,
    num_steps: int,
    found: _Found,
    gradients: Sequence[tf.Tensor] | None,
    cause: Callable[[str], str],
) -> tuple[str, int | None]:
    """What is not finite first, in words, and the step.

    Args:
        problem: A `PureProblem`.
        num_steps: Integer T.
        found: A `_Found`.
        gradients: List of the hypergradients; `None` in forward mode.
        cause: Callable("step" or "outer") -> what makes it there, in words.
    """
    for variable in problem.hyperparameters:
        if not all_finite(tf.convert_to_tensor(variable)):
            return f"The hyperparameter `{path_of(variable)}` is not finite.", None
    names = _non_finite_names(problem, found.state)
    steps = int(found.steps)
    span = f"(steps 0 to {num_steps - 1})"
    if names and steps == 0:
        return f"The initial state is not finite: {names}", 0
    if names:
        text = (
            f"NaN or infinity first appears in step {steps - 1} {span}, in the "
            f"state s_{steps} that it makes: {names}. "
        )
        usual = "Usual causes: too large a learning rate, or NaN in the data."
        return text + (cause("step") or usual), steps - 1
    value = found.inner_values[steps - 1]
    if not np.isfinite(value):
        return (
            f"`inner_objective` is not finite in step {steps - 1} {span}, though the "
            f"state is. {cause('step')} Received: {float(value)}".replace("  ", " ")
        ), steps - 1
    if not all_finite(found.outer_value):
        return (
            "`outer_objective` is not finite at the final state, though the state is."
            f" {cause('outer')} Received: {float(found.outer_value)}".replace("  ", " ")
        ), None
    pairs = zip(problem.hyperparameters, gradients or [], strict=bool(gradients))
    paths = [path_of(one) for one, gradient in pairs if not all_finite(gradient)]
    return _told_of_derivatives(paths, span, found, has_tangents=gradients is None)


def _told_of_derivatives(
    paths: Iterable[str], span: str, found: _Found, has_tangents: bool
) -> tuple[str, int | None]:
    paths = ", ".join(f"`{path}`" for path in paths)
    whose = f"The hypergradient{' of ' if paths else ''}{paths} is not finite: "
    step = None
    usual = (
        "Usual causes: the derivative of a root or norm at zero; or of eigenvalues or "
        "singular values that are equal, as at the identity; of phases of complex "
        "vectors; or of the determinant of a matrix that is singular."
    )
    if not found.outer:
        where = "the gradient of `outer_objective` at the final state is not"
    elif int(found.derivative_step) >= 0:
        step = int(found.derivative_step)
        where = f"its derivative first has NaN or infinity in step {step} {span}"
    elif not found.initial:
        where = "the derivative of the initial state is not: look at `initial_values`"
    elif has_tangents:
        where = (
            f"the derivative of each step {span}, taken backward, is, but not what is "
            "propagated forward"
        )
        usual = (
            "Usual causes: the derivative of a root or norm at zero, where the factor "
            "beside it is zero (0·∞), which far.ReverseHG() leaves out; or training "
            "that is chaotic, so that it overflows: fewer steps, or a smaller learning "
            "rate."
        )
    else:
        where = f"the derivative of each step {span} is, but their product overflows"
        usual = (
            "It grows from step to step, as where training is chaotic. Remedies: fewer "
            "steps, a smaller learning rate, or far.ReverseHG(truncation=...)."
        )
    return f"{whose}{where}. {usual}", step


def _non_finite_names(problem: PureProblem, state: State) -> str:
    named = [
        *zip(map(path_of, problem.variables), state.variables, strict=True),
        *zip(map(path_of, problem.extra_variables), state.extra, strict=True),
        *zip(problem.dynamics.slot_paths(), tf.nest.flatten(state.slots), strict=True),
    ]
    bad = [path for path, value in named if not all_finite(value)]
    return ", ".join(f"`{path}`" for path in dict.fromkeys(bad))


def _cause(
    problem: PureProblem, inputs: Inputs, found: _Found, role: str, compiler: str
) -> str:
    """What makes NaN in the last step that was made, or the outer objective, in words.

    Args:
        problem, inputs, compiler: As elsewhere.
        found: A `_Found`.
        role: "step" or "outer".
    """
    values = list(inputs.hyperparameters)
    if role == "step":
        number = inputs.first_step + found.steps - 1
        data = problem.inner_data.batch(inputs.inner, number)
        function = functools.partial(problem.step, found.before, values, number, data)
    else:
        data = problem.outer_data.batch(inputs.outer, inputs.outer_step)
        function = functools.partial(problem.outer_value, found.state, values, data)
    return cause_of(function, data, compiler)
