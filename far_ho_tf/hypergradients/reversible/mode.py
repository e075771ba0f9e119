"""Reverse mode without a trajectory: momentum descent run backwards, exactly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import require, warn_user
from far_ho_tf.dynamics import Momentum
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.nonfinite import NonFiniteError
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reversible.trajectory import ReversibleTrajectory
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import path_of
from far_ho_tf.variables.numbers import is_number

_NOTICED = 1e-5  # Relative errors above are warned of.


class ReversalError(ArithmeticError):
    """A run that was undone did not return to where it began."""


@dataclasses.dataclass(frozen=True)
class ReversibleHG(HyperGradient):
    """Reverse mode that undoes the training run instead of storing it.

    Weights and velocities are kept as integers, of which a step of `Momentum` can be
    undone bit for bit, given the bits that its multiplication by μ destroys: about
    log2(1/μ) for each weight and step (0.15 at μ = 0.9), where a stored state takes
    64. Time: about five training runs and the arithmetic of integers, which may be
    three times as much. At the end of each run the recovered initial state is compared
    with the true one; a mismatch is an error.

    What the inner objective changes besides the weights (BatchNorm statistics,
    Dropout seeds) is stored for each step. Weights and velocities must stay
    below 2¹⁴. Weights are rounded to 2⁻⁴⁶, and momenta to the nearest ratio n/d with d
    up to 2¹⁶, such as 9/10; a velocity gets noise of d units in each step, of 2⁻⁴⁶ or
    less where the first gradient is small. A warning follows where that may show.

    Args:
        jit_compile: Whether XLA compiles the gradients; it does compile the integers'
            arithmetic, and the loops are a graph in any case. See `HyperGradient`.

    Example, with w_2 = 2 − 8η − 4ημ + 8η²:

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(2.0, name="w")
    >>> rate = far.Hyperparameter(0.25, name="rate")
    >>> mass = far.Hyperparameter(0.5, name="mass")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: w * w,
    ...     outer_objective=lambda: 1.0 * w,
    ...     variables=[w],
    ...     dynamics=far.Momentum(rate, mass),
    ...     hyperparameters=[rate, mass],
    ... )
    >>> result = far.ReversibleHG().compute(problem, num_steps=2)
    >>> [round(float(g), 6) for g in result.hypergradients], float(w)
    ([-6.0, -1.0], 0.0)

    Raises:
        ValueError: In `compute`, if the dynamics cannot be reversed, with the
            alternative.
        NonFiniteError: Also if a weight or velocity, or a momentum that is learned or
            scheduled, leaves its range.
        ReversalError: If the initial state is not recovered.

    Source: Maclaurin et al. 2015, algorithms 2 and 3.
    """

    # Gradients must come from one program, which both loops call.
    compiles_loops = False

    def differentiate(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> Outputs:
        run = ReverseRun(problem, settings, inputs)
        reversal = ReversibleTrajectory(run, settings.compiled)
        outputs = run.differentiate(reversal)
        checks = dict(reversal.checks)
        return outputs._replace(
            finite=outputs.finite & checks.pop("finite") & checks["in_range"],
            checks=checks,
        )

    def held(self, problem: PureProblem, num_steps: int) -> int:
        # Each variable's momentum in each step, as a ratio.
        ratios = 16 * len(problem.variables) * num_steps
        return super().held(problem, num_steps) + ratios

    def check(self, problem: PureProblem) -> None:
        momentum = problem.dynamics.dynamics
        alternative = (
            'Alternative: far.ReverseHG(checkpointing="sqrt"), for any dynamics.'
        )
        mass = momentum.numbers.get("momentum")
        require(
            type(momentum) is Momentum
            and not momentum.nesterov
            and not (is_number(mass) and np.any(np.equal(mass, 0.0))),  # pyright: ignore[reportArgumentType, reportCallIssue]
            "ReversibleHG undoes steps of far.Momentum without nesterov; those of "
            "other dynamics, Keras optimizers and momentum 0 among them, destroy what "
            f"they start from. {alternative}",
            dynamics=momentum,
        )
        constrained = [v for v in problem.variables if v.constraint is not None]
        require(
            not constrained,
            f"ReversibleHG cannot undo the constraints of weights. {alternative}",
            variables=[path_of(variable) for variable in constrained],
        )

    def verify(self, checks: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        name = type(self).__name__
        alternative = 'Alternative: far.ReverseHG(checkpointing="sqrt").'
        if not bool(checks["momentum"]):
            raise NonFiniteError(
                f"{name} needs a momentum from 2⁻¹⁷ to 1 in each step and for each "
                f"variable. Received: {float(checks['lowest']):g} to "
                f"{float(checks['highest']):g}. {alternative}"
            )
        if not bool(checks["starts_in_range"]):
            raise NonFiniteError(
                f"{name} needs initial weights and velocities below 2¹⁴. {alternative}"
            )
        if not bool(checks["in_range"]):
            raise NonFiniteError(
                f"{name} needs weights below 2¹⁴, and velocities below that and below "
                "2¹⁷ times the first gradient. They grew beyond, as in a run that "
                f"diverges. {alternative}"
            )
        if not bool(checks["recovered"]):
            raise ReversalError(
                f"{name} did not return to the initial state bit for bit: the gradient "
                "is not the same when it is computed again, as of operations that are "
                f"not deterministic. {alternative}"
            )
        self._warn(float(checks["deviation"]), float(checks["noise"]))
        return {"buffer_bits": float(checks["bits"])}

    def _warn(self, deviation: float, noise: float) -> None:
        """Of what rounding may have done to the hypergradient."""
        for what, error in (
            ("Momenta are rounded to ratios of small integers", deviation),
            ("Gradients are small beside the first velocity", noise),
        ):
            if error > _NOTICED:
                warn_user(
                    f"{what}: velocities of {type(self).__name__} may be off by "
                    f"{error:.0e} of themselves in a step, and the hypergradient with "
                    'them. Alternative: far.ReverseHG(checkpointing="sqrt").'
                )
