"""Any Keras optimizer as dynamics."""

from collections.abc import Mapping

import keras

from far_ho_tf._types import Variable
from far_ho_tf.checks import require
from far_ho_tf.dynamics.arguments import Argument, Bounds
from far_ho_tf.dynamics.base import Dynamics
from far_ho_tf.dynamics.keras.bound import BoundOptimizer
from far_ho_tf.dynamics.keras.checks import (
    CLIPPING,
    check_optimizer,
    check_used,
    numbers_of,
)


class KerasDynamics(Dynamics):
    """A Keras optimizer as dynamics, its numbers among the hyperparameters.

    Weights move as `optimizer.apply` moves them: the optimizer's own
    `update_step` is used, with weight decay, clipping, learning-rate schedules
    and averages (EMA) as Keras has them. It gets the gradient of an embedding as
    Keras' tape gives it, a `tf.IndexedSlices`: most optimizers, and clipping, treat
    each reading of a row by itself. √0, as of Adam where all gradients of
    a weight were zero so far, has the derivative 0 (`safe_sqrt`).

    What Python decides (`nesterov`, `amsgrad`, whether there is momentum) stays
    as the optimizer was made. A float is read when a problem's steps are traced,
    the learning rate, a variable, when they run. A limit for clipping among the
    hyperparameters is one whatever its value: 0 stops the weights, where Keras'
    0 means no limit.

    Args:
        optimizer: A `keras.optimizers.Optimizer`; one that is built already must
            be for the variables of the problem.
        hyperparameters: Mapping from names of its numbers ("learning_rate",
            "beta_1", "weight_decay", "clipnorm", ...; an error lists them all) to
            what takes their place; see `Dynamics` for what a numeric argument
            takes.

    Attributes:
        optimizer: As given.

    Raises:
        ValueError: If the optimizer does something that has no place within a
            differentiated step; the message names the alternative.

    Example:

    >>> import far_ho_tf as far, keras
    >>> rate = far.Hyperparameter(1e-3, name="rate")
    >>> decay = far.Hyperparameter(1e-2, name="decay")
    >>> dynamics = far.KerasDynamics(
    ...     keras.optimizers.AdamW(),
    ...     hyperparameters={"learning_rate": rate, "weight_decay": decay},
    ... )
    >>> dynamics.slot_names
    ()
    """

    bounds = {
        **Dynamics.bounds,
        **dict.fromkeys(("beta_1", "beta_2"), Bounds(0.0, 1.0)),
        **dict.fromkeys(("rho", "momentum", "ema_momentum"), Bounds(0.0, 1.0, "[]")),
        **dict.fromkeys(("epsilon", "weight_decay"), Bounds(0.0)),
        **dict.fromkeys(CLIPPING, Bounds(0.0, float("inf"), "()")),
    }

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        hyperparameters: Mapping[str, Argument] | None = None,
    ) -> None:
        check_optimizer(optimizer)
        hyperparameters = {} if hyperparameters is None else hyperparameters
        require(
            isinstance(hyperparameters, Mapping),
            "`hyperparameters` of KerasDynamics must be a mapping from names of the "
            "optimizer's numbers to their values.",
            hyperparameters=hyperparameters,
        )
        for name in hyperparameters:
            require(
                name in numbers_of(optimizer),
                f"{type(optimizer).__name__} has no number `{name}` that could be a "
                f"hyperparameter. It has {numbers_of(optimizer)}.",
                hyperparameters=list(hyperparameters),
            )
        check_used(optimizer, hyperparameters)
        self.optimizer = optimizer
        super().__init__(**hyperparameters)

    def bind(self, variables: list[Variable]) -> "BoundOptimizer":
        return BoundOptimizer(self, variables)

    def label(self, name: str) -> str:
        return f"`{name}` of {type(self.optimizer).__name__}"

    def __repr__(self) -> str:
        return f"KerasDynamics({type(self.optimizer).__name__}, {self.numbers!r})"


def as_dynamics(dynamics: Dynamics | keras.optimizers.Optimizer) -> Dynamics:
    """Returns `Dynamics`, made of a Keras optimizer where it is one."""
    if isinstance(dynamics, keras.optimizers.Optimizer):
        return KerasDynamics(dynamics)
    require(
        isinstance(dynamics, Dynamics),
        "`dynamics` must be a `far_ho_tf.Dynamics` such as "
        "`far.Momentum(learning_rate=0.1)`, or a Keras optimizer.",
        dynamics=dynamics,
    )
    return dynamics
