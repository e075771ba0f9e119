"""Gradient descent with a backtracking line search."""

import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.dynamics.arguments import Bounds
from far_ho_tf.dynamics.base import Dynamics


class BacktrackingGradientDescent(Dynamics):
    r"""Gradient descent, \(w' = w - \eta \tau^k g\), by Armijo's rule.

    k is the smallest number of reductions for which the inner objective falls
    enough, \(L(w') \le L(w) - c\, \eta \tau^k \|g\|^2\), on the batch of the step.
    For hypergradients k is a constant, which it is but for a null set of
    hyperparameters; reverse mode keeps the accepted ones and replays them.

    Args:
        learning_rate: η, the first step length that is tried; see `Dynamics` for
            what a numeric argument takes.
        tau: τ in (0, 1), the factor of a reduction; the same.
        c: Number in (0, 1): the part of the decrease that the gradient promises
            that is enough.
        max_reductions: Integer; the step is taken after so many in any case.

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

    Source: Nocedal and Wright 2006, algorithm 3.1; FAR-HO.
    """

    bounds = {**Dynamics.bounds, "tau": Bounds(0.0, 1.0)}
    choices = {"reductions": tf.TensorSpec([], tf.int32)}

    def __init__(self, learning_rate=1.0, tau=0.5, c=0.5, max_reductions=50):
        super().__init__(learning_rate=learning_rate, tau=tau)
        require(
            isinstance(c, float) and 0.0 < c < 1.0,
            f"`c` of {type(self).__name__} must be a number between 0 and 1.",
            c=c,
        )
        self.c = c
        self.max_reductions = check_count("max_reductions", max_reductions)

    def choose(self, loss, value, variables, gradients, numbers):
        def is_too_long(reductions):
            lengths = [
                number["learning_rate"]
                * number["tau"] ** tf.cast(reductions, value.dtype)
                for number in numbers
            ]
            parts = list(zip(lengths, variables, gradients, strict=True))
            promised = tf.add_n([tf.reduce_sum(a * g * g) for a, _, g in parts])
            reached = loss([w - a * g for a, w, g in parts])
            # NaN, too, is no decrease.
            return tf.logical_not(reached <= value - self.c * promised)

        (reductions,) = tf.while_loop(
            is_too_long,
            lambda reductions: (reductions + 1,),
            (tf.constant(0),),
            maximum_iterations=self.max_reductions,
        )
        return {"reductions": reductions}

    def update(self, variable, gradient, slots, step, learning_rate, tau, reductions):
        del slots, step
        length = learning_rate * tau ** tf.cast(reductions, variable.dtype)
        return variable - length * gradient, ()
