"""Gradient descent."""

import tensorflow as tf

from far_ho_tf.dynamics.arguments import Argument
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.bound import Moved


class GradientDescent(Dynamics):
    r"""Gradient descent, \(w' = w - \eta g\).

    Args:
        learning_rate: η; see `Dynamics` for what a numeric argument takes.

    Example:

    >>> import far_ho_tf as far
    >>> rate = far.Hyperparameter(0.1, name="rate")
    >>> far.GradientDescent(rate).slot_names
    ()

    Source: Franceschi et al. 2017, section 3 (A = I − ηH, B_η = −g).
    """

    def __init__(self, learning_rate: Argument = 0.01) -> None:
        super().__init__(learning_rate=learning_rate)

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> Moved:
        del slots, step
        return variable - learning_rate * gradient, ()
