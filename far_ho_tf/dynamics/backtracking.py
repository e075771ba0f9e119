"""Gradient descent with a backtracking line search."""

import numbers
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import check_count, require, warn_user
from far_ho_tf.dynamics.arguments import Argument, Bounds
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.bound import Moved
from far_ho_tf.patches.safe_roots import power


class BacktrackingGradientDescent(Dynamics):
    r"""Gradient descent, \(w' = w - \eta \tau^k g\), by Armijo's rule.

    k is the smallest number of reductions for which the inner objective falls
    enough, \(L(w') \le L(w) - c\, g \cdot (w - w')\), on the batch of the step,
    where w' is what the constraints of the weights make of \(w - \eta \tau^k g\).
    For hypergradients k is a constant, which it is but for a null set of
    hyperparameters; reverse mode keeps the accepted ones and replays them.
    `result.choices["reductions"]` holds the k of all steps.

    Args:
        learning_rate: η, the first step length that is tried; see `Dynamics` for
            what a numeric argument takes.
        tau: τ in (0, 1), the factor of a reduction; the same.
        c: Number in (0, 1): the part of the decrease that the gradient promises
            that is enough. No hyperparameter: it has no derivative.
        max_reductions: Integer; the step is taken after so many in any case, and
            `compute` warns of it (`RealTimeModel` does not).

    Example:

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(1.0, name="w")
    >>> rate = far.Hyperparameter(4.0, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: 0.5 * w * w,
    ...     outer_objective=lambda: 1.0 * w,
    ...     variables=[w],
    ...     dynamics=far.BacktrackingGradientDescent(rate, c=0.25),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ReverseHG().compute(problem, num_steps=1)
    >>> float(w), float(result.hypergradients[0])  # w' = w − ¼ η w
    (0.0, -0.25)

    Source: Nocedal and Wright 2006, algorithm 3.1; with constraints Bertsekas
    1976 ("On the Goldstein–Levitin–Polyak gradient projection method"); FAR-HO.
    """

    bounds = {**Dynamics.bounds, "tau": Bounds(0.0, 1.0, "()")}
    choices = {"reductions": tf.TensorSpec([], tf.int32)}

    def __init__(
        self,
        learning_rate: Argument = 1.0,
        tau: Argument = 0.5,
        c: float = 0.5,
        max_reductions: int = 50,
    ) -> None:
        super().__init__(learning_rate=learning_rate, tau=tau)
        require(
            isinstance(c, numbers.Real) and 0.0 < c < 1.0,
            f"`c` of {type(self).__name__} must be a number between 0 and 1.",
            c=c,
        )
        self.c = float(c)
        self.max_reductions = check_count("max_reductions", max_reductions)

    def choose(
        self,
        loss: Callable[[list[tf.Tensor]], tf.Tensor],
        value: tf.Tensor,
        variables: list[tf.Tensor],
        gradients: list[tf.Tensor],
        numbers: list[dict[str, tf.Tensor]],
        constrain: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        def is_long(reductions: tf.Tensor) -> tf.Tensor:
            steps = [
                _length(number["learning_rate"], number["tau"], reductions) * gradient
                for number, gradient in zip(numbers, gradients, strict=True)
            ]
            moved = constrain(
                [w - step for w, step in zip(variables, steps, strict=True)]
            )
            promised = [
                tf.reduce_sum(g * (w - m))
                for w, g, m in zip(variables, gradients, moved, strict=True)
            ]
            # NaN, too, is no decrease.
            return tf.logical_not(loss(moved) <= value - self.c * tf.add_n(promised))

        # Not by a loop's condition: XLA takes none that assigns tf.Variables.
        reductions, _ = tf.while_loop(
            lambda _, long: long,
            lambda reductions, _: (reductions + 1, is_long(reductions + 1)),
            (tf.constant(-1), tf.constant(True)),
            maximum_iterations=self.max_reductions + 1,
        )
        return {"reductions": reductions}

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        tau: tf.Tensor,
        reductions: tf.Tensor,
    ) -> Moved:
        del slots, step
        return variable - _length(learning_rate, tau, reductions) * gradient, ()

    def review(self, choices: Mapping[str, np.ndarray]) -> None:
        *_, steps = np.nonzero(choices["reductions"] >= self.max_reductions)
        if len(steps):
            warn_user(
                f"{type(self).__name__} found no step length that makes "
                f"`inner_objective` fall enough within max_reductions="
                f"{self.max_reductions}, in {len(steps)} steps, the first of them "
                f"step {steps[0]} of the run. The steps were made all the same."
            )


def _length(
    learning_rate: tf.Tensor, tau: tf.Tensor, reductions: tf.Tensor
) -> tf.Tensor:
    return learning_rate * power(tau, tf.cast(reductions, tau.dtype))
