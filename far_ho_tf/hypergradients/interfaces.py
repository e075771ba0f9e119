"""What is needed here of what is made in modules that import these."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.state import State


class Room(Protocol):
    """What a program holds: `Buffers`, or a mode's own tuple like them."""

    @property
    def steps(self) -> int: ...


class Mode(Protocol):
    """A `HyperGradient`."""

    @property
    def jit_compile(self) -> bool | str: ...

    @property
    def has_tangents(self) -> bool: ...

    @property
    def compiles_loops(self) -> bool: ...

    @property
    def splits_batches(self) -> bool: ...

    def check(self, problem: PureProblem) -> None: ...

    def check_tangents(self, problem: PureProblem, tangents: State | None) -> None: ...

    def differentiate(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> Outputs: ...

    def buffers(self, problem: PureProblem, num_steps: int) -> Room: ...

    def itinerary(self, problem: PureProblem, num_steps: int) -> Structure: ...

    def describe(self, problem: PureProblem, num_steps: int) -> dict[str, Any]: ...

    def verify(self, checks: Mapping[str, tf.Tensor]) -> dict[str, Any]: ...

    def keeps_tangents(self, problem: PureProblem, asked: bool | None) -> bool: ...

    def held(self, problem: PureProblem, num_steps: int) -> int: ...


class Visit(Protocol):
    """A step back; see `Trajectory.replay`."""

    def __call__(
        self,
        step: tf.Tensor,
        state: State,
        choice: dict[str, tf.Tensor],
        carry: Structure,
        /,
        *residuals: Structure,
    ) -> Structure: ...


class Trajectory(Protocol):
    """A `reverse.trajectory.Trajectory`."""

    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]: ...

    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure: ...
