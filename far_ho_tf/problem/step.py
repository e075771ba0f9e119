"""What a training step is made of."""

from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.variables.derivatives import Slices
from far_ho_tf.variables.state import State


class OracleValue(NamedTuple):
    """What the gradient oracle gives, which costs the time of a step.

    Attributes:
        gradients: List: ∇_w L, dense tensors, and `Slices` where the dynamics tell
            them apart.
        extra: List of tensors: the new extra state.
        value: Scalar tensor, the inner objective.
    """

    gradients: list[tf.Tensor | Slices]
    extra: list[tf.Tensor]
    value: tf.Tensor


class Log(NamedTuple):
    """What a run keeps of each step.

    Attributes:
        value: Scalar tensor, the inner objective before the step.
        choice: Mapping: what the dynamics chose; see `Dynamics.choices`.
    """

    value: tf.Tensor
    choice: dict[str, tf.Tensor]


class Step(NamedTuple):
    """A step that was made.

    Attributes:
        state: The new `State`.
        log: A `Log`.
    """

    state: State
    log: Log
