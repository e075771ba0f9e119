"""Adam and AdamW."""

import tensorflow as tf

from far_ho_tf.dynamics.arguments import Argument, Bounds
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.bound import Moved
from far_ho_tf.patches.safe_roots import safe_sqrt


class Adam(Dynamics):
    r"""Adam, with values equal to `keras.optimizers.Adam`.

    \(m' = m + (1-\beta_1)(g - m)\), \(v' = v + (1-\beta_2)(g^2 - v)\),
    \(w' = w - \eta \frac{\sqrt{1-\beta_2^{t+1}}}{1-\beta_1^{t+1}}
    \frac{m'}{\sqrt{v'} + \epsilon}\) at step t = 0, 1, ...

    Where all gradients of a weight were zero so far (dead ReLUs, inputs that
    are always zero), v' = 0 and √v' has no derivative; the update as a whole
    has one, and it is what hypergradients use (`safe_sqrt`).

    Args:
        learning_rate: η; see `Dynamics` for what a numeric argument takes.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε, not negative; at 0, gradients of zero give NaN. It stands
            outside the root, as in Keras, in values and derivatives alike.

    Example:

    >>> import far_ho_tf as far
    >>> rate = far.Hyperparameter(1e-3, name="rate")
    >>> beta = far.Hyperparameter(0.9, name="beta")
    >>> far.Adam(learning_rate=rate, beta_1=beta).slot_names
    ('momentum', 'velocity')

    Source: Kingma and Ba 2015, algorithm 1; Franceschi et al. 2017, appendix.
    """

    slot_names = ("momentum", "velocity")
    bounds = {
        **Dynamics.bounds,
        "beta_1": Bounds(0.0, 1.0),
        "beta_2": Bounds(0.0, 1.0),
        "epsilon": Bounds(0.0),
    }

    def __init__(
        self,
        learning_rate: Argument = 0.001,
        beta_1: Argument = 0.9,
        beta_2: Argument = 0.999,
        epsilon: Argument = 1e-7,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon
        )

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        beta_1: tf.Tensor,
        beta_2: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> Moved:
        momentum, velocity = slots
        count = tf.cast(step + 1, variable.dtype)
        correction = tf.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        momentum += (1 - beta_1) * (gradient - momentum)
        velocity += (1 - beta_2) * (tf.square(gradient) - velocity)
        direction = momentum / (safe_sqrt(velocity) + epsilon)
        return (
            variable - learning_rate * correction * direction,
            (momentum, velocity),
        )


class AdamW(Adam):
    r"""Adam with decoupled weight decay, as `keras.optimizers.AdamW`.

    \(w\) becomes \(w - \eta \lambda w\) before the step of `Adam`.

    Args:
        learning_rate, beta_1, beta_2, epsilon: See `Adam`.
        weight_decay: λ, not negative; see `Dynamics` for what a numeric argument
            takes, such as 0 for some variables by patterns.

    Example:

    >>> import far_ho_tf as far
    >>> decay = far.Hyperparameter(0.004, name="decay")
    >>> dynamics = far.AdamW(1e-3, weight_decay={".*/kernel": decay, ".*": 0.0})

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    bounds = {**Adam.bounds, "weight_decay": Bounds(0.0)}

    def __init__(
        self,
        learning_rate: Argument = 0.001,
        weight_decay: Argument = 0.004,
        beta_1: Argument = 0.9,
        beta_2: Argument = 0.999,
        epsilon: Argument = 1e-7,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon)
        self.add_number("weight_decay", weight_decay)

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        beta_1: tf.Tensor,
        beta_2: tf.Tensor,
        epsilon: tf.Tensor,
        weight_decay: tf.Tensor,
    ) -> Moved:
        decayed = variable - learning_rate * weight_decay * variable
        return super().update(
            decayed, gradient, slots, step, learning_rate, beta_1, beta_2, epsilon
        )
