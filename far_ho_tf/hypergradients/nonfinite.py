"""NaN and infinity: where they began."""

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from far_ho_tf.graphs.failures import told, where_now
from far_ho_tf.variables.derivatives import all_finite
from far_ho_tf.variables.identity import path_of

# Beyond it, numbers are those of a run that diverges.
_DIVERGED = 1e6
# Operations that make infinity of numbers that are not large.
_GROWING = ("Cosh", "Exp", "Expm1", "Sinh")
_TOLD = (tf.float32, tf.float64, tf.complex64, tf.complex128)


class NonFiniteError(FloatingPointError, ValueError):
    """NaN or infinity appeared in the state or in the hypergradient.

    Or an outer value above the `outer_limit` of `HyperOptimizer.fit`.

    Attributes:
        step: The first step at which it appeared, 0 for the first of the run
            (in reverse mode, for the derivative: the first that the backward
            pass reached, counting down); `None` where the outer objective or
            the initial values made it.
    """

    def __init__(self, message, step=None):
        super().__init__(message)
        self.step = step


def raise_non_finite(problem, num_steps, found, has_tangents, cause):
    """Raises a `NonFiniteError` that names the first such place.

    Args:
        problem: The `BilevelProblem`.
        num_steps: Integer T.
        found: The `Outputs` of a program that searched for it.
        has_tangents: Whether it propagated tangents. There NaN spreads from one
            hyperparameter to the others (0·∞), so that none can be named.
        cause: Callable(step) -> what makes it in a step, as `cause` says it; the
            number of steps stands for the outer objective.
    """
    try:
        _raise(problem, num_steps, found, has_tangents, cause)
    except NonFiniteError as error:
        if "episode" not in found.checks:
            raise
        episode = int(found.checks["episode"])
        raise NonFiniteError(f"In episode {episode}: {error}", error.step) from None


def cause(function, batch, compiler):
    """What makes NaN or infinity in a function, found by running it eagerly.

    Args:
        function: Callable() -> a structure of tensors.
        batch: The data that it takes.
        compiler: "xla" or "graph", by which it came out so.

    Returns:
        A sentence; an empty string where nothing is found out.
    """
    if not bool(all_finite(batch)):
        return "The batch holds NaN or infinity."
    found = []

    def look(kind, inputs, attributes, outputs, name=None, graph=None):
        del attributes, name
        if graph is not None or found:
            return
        largest = _largest(inputs)
        if np.isfinite(largest) and not np.isfinite(_largest(outputs)):
            found.append(
                f"It is first made by {kind}{where_now()}, of numbers up to "
                f"{largest:.2g}. {_usual(kind, largest)}"
            )

    op_callbacks.add_op_callback(look)
    try:
        result = function()
    except Exception as error:
        own = error.__cause__ or error
        if not isinstance(own, tf.errors.OpError):
            return ""  # It cannot be run eagerly.
        return f"Run by itself, without XLA, it fails: {told(own)}."
    finally:
        op_callbacks.remove_op_callback(look)
    if found:
        return found[0]
    if compiler == "xla" and bool(all_finite(result)):
        return (
            "Without XLA the same is finite, as where a root or norm at zero has a "
            "derivative of XLA's own. Remedy: jit_compile=False, or sums of squares in "
            "the place of squared norms."
        )
    return ""


def _usual(kind, largest):
    if largest > _DIVERGED or kind in _GROWING:
        return "A usual cause: too large a learning rate."
    return (
        "Usual causes: a logarithm or division, or the derivative of a root or norm, "
        "at zero."
    )


def _largest(tensors):
    """The largest absolute value of the floating ones, NaN where there is one."""
    values = [np.abs(t.numpy()) for t in tensors if t.dtype in _TOLD]
    return max((np.max(value, initial=0.0) for value in values), key=_rank, default=0.0)


def _rank(value):
    return np.inf if np.isnan(value) else value


def _raise(problem, num_steps, found, has_tangents, cause):
    for variable in problem.hyperparameters:
        if not all_finite(tf.convert_to_tensor(variable)):
            raise NonFiniteError(
                f"The hyperparameter `{path_of(variable)}` is not finite."
            )
    names = _non_finite_names(problem, found.state)
    steps = int(found.steps)
    span = f"(steps 0 to {num_steps - 1})"
    if names and steps == 0:
        raise NonFiniteError(f"The initial state is not finite: {names}", step=0)
    if names:
        raise NonFiniteError(
            f"NaN or infinity first appears in step {steps - 1} {span}, in the "
            f"state s_{steps} that it makes: {names}. "
            + (
                cause(steps - 1)
                or "Usual causes: too large a learning rate, or NaN in the data."
            ),
            step=steps - 1,
        )
    values = found.inner_values.numpy()
    if not np.all(np.isfinite(values)):
        step = int(np.argmin(np.isfinite(values)))
        raise NonFiniteError(
            f"`inner_objective` is not finite in step {step} {span}, though the state "
            f"is. {cause(step)} Received: {values[step]}",
            step=step,
        )
    if not all_finite(found.outer_value):
        raise NonFiniteError(
            "`outer_objective` is not finite at the final state, which is. "
            f"{cause(num_steps)} Received: {float(found.outer_value)}"
        )
    paths = ", ".join(
        f"`{path_of(variable)}`"
        for variable, gradient in zip(
            problem.hyperparameters, found.hypergradients, strict=True
        )
        if not all_finite(gradient)
    )
    whose = f" of {paths}" if paths and not has_tangents else ""
    step = int(found.derivative_step)
    where = {
        -1: "the derivative of the initial state is not: look at `initial_values`",
        num_steps: "the gradient of `outer_objective` at the final state is not",
    }.get(step, f"its derivative first has NaN or infinity in step {step} {span}")
    raise NonFiniteError(
        f"The hypergradient{whose} is not finite: {where}. Usual causes: the "
        "derivative of a root or norm at zero; or of eigenvalues or singular values "
        "that are equal, as at the identity; of phases of complex vectors; or of the "
        "determinant of a matrix that is singular.",
        step=step if 0 <= step < num_steps else None,
    )


def _non_finite_names(problem, state):
    named = [
        *zip(map(path_of, problem.variables), state.variables, strict=True),
        *zip(map(path_of, problem.extra_variables), state.extra, strict=True),
        *zip(problem.dynamics.slot_paths(), tf.nest.flatten(state.slots), strict=True),
    ]
    bad = [path for path, value in named if not all_finite(value)]
    return ", ".join(f"`{path}`" for path in dict.fromkeys(bad))
