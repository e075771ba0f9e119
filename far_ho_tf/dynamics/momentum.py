"""Gradient descent with momentum."""

import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.dynamics.arguments import Argument, Bounds
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.bound import Moved


class Momentum(Dynamics):
    r"""Heavy-ball momentum, \(m' = \mu m + g\), \(w' = w - \eta m'\).

    With `nesterov`, \(w' = w - \eta (\mu m' + g)\). For a constant learning
    rate the weights equal those of `keras.optimizers.SGD`, whose velocity is
    −ηm. Under a learning-rate schedule they differ: here, as in the paper, a
    new learning rate scales the whole velocity, not the newest gradient only.

    Args:
        learning_rate: η; see `Dynamics` for what a numeric argument takes.
        momentum: μ in [0, 1].
        nesterov: Boolean.
        initial_velocity: m before the first step: a number, a hyperparameter of the
            variable's shape, or one of these per variable.

    Example:

    >>> import far_ho_tf as far
    >>> far.Momentum(learning_rate=0.1, momentum=0.9).slot_names
    ('velocity',)

    Source: Franceschi et al. 2017, section 3 and appendix.
    """

    slot_names = ("velocity",)
    bounds = {**Dynamics.bounds, "momentum": Bounds(0.0, 1.0, "[]")}

    def __init__(
        self,
        learning_rate: Argument = 0.01,
        momentum: Argument = 0.9,
        nesterov: bool = False,
        initial_velocity: Argument = 0.0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum)
        require(
            isinstance(nesterov, bool),
            "`nesterov` must be a boolean.",
            nesterov=nesterov,
        )
        self.nesterov = nesterov
        self.initial_slots = {"velocity": initial_velocity}

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
    ) -> Moved:
        del step
        velocity = momentum * slots[0] + gradient
        direction = velocity
        if self.nesterov:
            direction = momentum * velocity + gradient
        return variable - learning_rate * direction, (velocity,)
