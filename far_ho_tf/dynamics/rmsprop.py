"""RMSprop."""

import tensorflow as tf

from far_ho_tf.dynamics.arguments import Argument, Bounds
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.bound import Moved


class RMSprop(Dynamics):
    r"""RMSprop, as `keras.optimizers.RMSprop` without `centered`.

    \(v' = \rho v + (1-\rho) g^2\), \(m' = \mu m + \eta g / \sqrt{v' + \epsilon}\),
    \(w' = w - m'\).

    Args:
        learning_rate: η; see `Dynamics` for what a numeric argument takes.
        rho: ρ in [0, 1].
        momentum: μ in [0, 1].
        epsilon: ε, not negative, within the root; at 0, gradients of zero give NaN.

    Example:

    >>> import far_ho_tf as far
    >>> rho = far.Hyperparameter(0.9, name="rho")
    >>> far.RMSprop(learning_rate=1e-3, rho=rho).slot_names
    ('velocity', 'momentum')

    Source: Tieleman and Hinton 2012, lecture 6.5.
    """

    slot_names = ("velocity", "momentum")
    bounds = {
        **Dynamics.bounds,
        "rho": Bounds(0.0, 1.0, "[]"),
        "momentum": Bounds(0.0, 1.0, "[]"),
        "epsilon": Bounds(0.0),
    }

    def __init__(
        self,
        learning_rate: Argument = 0.001,
        rho: Argument = 0.9,
        momentum: Argument = 0.0,
        epsilon: Argument = 1e-7,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, rho=rho, momentum=momentum, epsilon=epsilon
        )

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        rho: tf.Tensor,
        momentum: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> Moved:
        del step
        velocity = rho * slots[0] + (1 - rho) * tf.square(gradient)
        moved = momentum * slots[1] + learning_rate * gradient / tf.sqrt(
            velocity + epsilon
        )
        return variable - moved, (velocity, moved)
