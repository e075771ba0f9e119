"""NaN and infinity: where they began."""

import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import all_finite
from far_ho_tf.variables import path_of


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


def raise_non_finite(problem, num_steps, found, has_tangents):
    """Raises a `NonFiniteError` that names the first such place.

    Args:
        problem: The `BilevelProblem`.
        num_steps: Integer T.
        found: The `Outputs` of a program that searched for it.
        has_tangents: Whether it propagated tangents. There NaN spreads from one
            hyperparameter to the others (0·∞), so that none can be named.
    """
    try:
        _raise(problem, num_steps, found, has_tangents)
    except NonFiniteError as error:
        if "episode" not in found.checks:
            raise
        episode = int(found.checks["episode"])
        raise NonFiniteError(f"In episode {episode}: {error}", error.step) from None


def _raise(problem, num_steps, found, has_tangents):
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
            f"state s_{steps} that it makes: {names}. Usual causes: too large a "
            "learning rate, or NaN in the data.",
            step=steps - 1,
        )
    values = found.inner_values.numpy()
    if not np.all(np.isfinite(values)):
        step = int(np.argmin(np.isfinite(values)))
        raise NonFiniteError(
            f"`inner_objective` is not finite in step {step} {span}, though the state "
            f"is. Received: {values[step]}",
            step=step,
        )
    if not all_finite(found.outer_value):
        raise NonFiniteError(
            "`outer_objective` is not finite at the final state, which is. "
            f"Received: {float(found.outer_value)}"
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
        "that are equal, as at the identity.",
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
