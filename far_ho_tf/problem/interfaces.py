"""What is needed here of what is made in modules that import these."""

from typing import Any, Protocol

import tensorflow as tf

from far_ho_tf._types import Gradient, Structure, Variable
from far_ho_tf.data.source import Source
from far_ho_tf.dynamics.bound import BoundDynamics
from far_ho_tf.variables.state import State
from far_ho_tf.variables.substitution import SubstitutionScope


class Problem(Protocol):
    """A `PureProblem`, whose parts can be traced."""

    variables: list[Variable]
    hyperparameters: list[Variable]
    dynamics: BoundDynamics
    inner_data: Source
    outer_data: Source

    def initial_state(
        self, start: State, hyperparameters: list[tf.Tensor], outer_step: tf.Tensor
    ) -> State: ...

    def update(
        self,
        state: State,
        gradients: list[Structure],
        hyperparameters: list[tf.Tensor],
        step: tf.Tensor,
        choice: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[Structure]]: ...

    def traced_gradients(
        self,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tuple[list[Gradient | None], SubstitutionScope]: ...

    def traced_outer_value(
        self,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tf.Tensor: ...

    def forward_value(
        self,
        role: str,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tf.Tensor: ...

    def keep_rules(self, role: str, codes: frozenset[Any]) -> None: ...
