"""What the runs of all gradient modes share, while they are traced."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.distribution.replicas import ONE_REPLICA, as_replicas
from far_ho_tf.graphs.functions import as_one_call
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.outer import differentiate_outer
from far_ho_tf.hypergradients.program import Inputs, Settings
from far_ho_tf.patches.kernels import beside_gpu
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.problem.step import Log, OracleValue, Step
from far_ho_tf.variables.state import State


class Run:
    """One hyper-iteration of a problem.

    Args:
        problem: A `PureProblem`.
        settings: `Settings`.
        inputs: `Inputs` of symbolic tensors.

    Attributes:
        problem, inputs: As given.
        restart: Whether it starts from Φ_0, by `problem.initial_state`, or from
            `inputs.start`.
        dependence: A `Dependence`, for a mode to note what it finds and to check.
        hyperparameters: List of tensors λ.
        num_steps: int32 scalar tensor T.
        capacity: Python integer, the most steps that the buffers hold.
        replicas: What shares the batches; see `replicas.as_replicas`.
        kept: List of tensors like those that are kept of a step beside its state.
        is_inline: Whether a step is a part of its loop's graph, not a call there.
    """

    def __init__(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> None:
        self.problem = problem
        self.num_steps = inputs.num_steps
        self.capacity = settings.buffers.steps
        self.restart = settings.restart
        self.inputs = inputs
        self.replicas = as_replicas(settings.strategy, settings.compiled)
        several = self.replicas is not ONE_REPLICA
        self.is_inline = settings.compiled or several or beside_gpu()
        self.hyperparameters = list(inputs.hyperparameters)
        self.dependence = Dependence(problem)
        self.kept: list[tf.Tensor] = []

    @as_one_call
    def step(self, step: tf.Tensor, state: State) -> Step:
        """Φ, as a `Step`."""
        return self.problem.step(
            state,
            self.hyperparameters,
            self.number(step),
            self.batch(step),
            self.replicas,
        )

    @as_one_call
    def redo(
        self, step: tf.Tensor, state: State, choice: dict[str, tf.Tensor]
    ) -> State:
        """Φ once more, with what the dynamics chose before."""
        oracle = self.replicas.mean(
            lambda shard: self.problem.oracle(state, self.hyperparameters, shard),
            self.batch(step),
        )
        return self.moved(step, state, oracle, choice)

    def moved(
        self,
        step: tf.Tensor,
        state: State,
        oracle: OracleValue,
        choice: dict[str, tf.Tensor],
    ) -> State:
        """The new state by an `OracleValue`, and what the dynamics chose before."""
        variables, slots = self.problem.update(
            state, oracle.gradients, self.hyperparameters, self.number(step), choice
        )
        return State(variables, slots, oracle.extra)

    def loop(
        self,
        move: Callable[[tf.Tensor, State, Structure], tuple[State, Structure]],
        step: int | tf.Tensor,
        last: tf.Tensor,
        state: State,
        logs: Structure,
    ) -> list[Any]:
        """Moves on by `move` up to a step.

        Args:
            move: Callable(step, state, logs) -> (state, logs).
            step, last: Scalar int32 tensors.
            state, logs: What is moved.

        Returns:
            State and logs.
        """
        _, *moved = tf.while_loop(
            lambda step, *_: step < last,
            lambda step, *moved: (step + 1, *move(step, *moved)),
            (step, state, logs),
            parallel_iterations=1,
        )
        return moved

    def train(self, last: tf.Tensor, state: State, logs: Structure) -> list[Any]:
        """The first steps, of which nothing is kept but `logs`."""

        def move(
            step: tf.Tensor, state: State, logs: Structure
        ) -> tuple[State, Structure]:
            state, log = self.step(step, state)
            return state, write(logs, step, log)

        return self.loop(move, tf.constant(0), last, state, logs)

    @as_one_call
    def outer(self, state: State) -> tuple[tf.Tensor, State, list[tf.Tensor]]:
        """See `differentiate_outer`, of the final state."""
        inputs = self.inputs
        batch = self.problem.outer_data.batch(
            inputs.outer, inputs.outer_step, inputs.episode
        )
        return differentiate_outer(
            self.problem,
            state,
            self.hyperparameters,
            batch,
            self.dependence,
            self.replicas,
        )

    def logs(self) -> Log:
        """A `Log` of `TensorArray`s, for those of all steps."""
        value = tf.TensorSpec([], self.problem.dtype)
        specs = Log(value, self.problem.dynamics.choices)  # pyright: ignore[reportArgumentType]
        return self.arrays(specs, self.capacity)

    def arrays(self, like: Structure, size: int | tf.Tensor) -> Structure:
        """A structure of `TensorArray`s for tensors like these."""
        return tf.nest.map_structure(
            lambda t: tf.TensorArray(t.dtype, size, element_shape=t.shape), like
        )

    def number(self, step: int | tf.Tensor) -> tf.Tensor:
        """The number of a step, as data and schedules count it."""
        return self.inputs.first_step + step

    def batch(self, step: int | tf.Tensor) -> Structure:
        """The batch of a step."""
        return self.problem.inner_data.batch(
            self.inputs.inner, self.number(step), self.inputs.episode
        )


def write(arrays: Structure, index: int | tf.Tensor, tensors: Structure) -> Structure:
    """Writes a structure of tensors to one of `TensorArray`s."""
    return tf.nest.map_structure(lambda a, t: a.write(index, t), arrays, tensors)


def read(arrays: Structure, index: int | tf.Tensor) -> Structure:
    """Reads a structure of tensors from one of `TensorArray`s."""
    return tf.nest.map_structure(lambda array: array.read(index), arrays)


def stack(arrays: Structure) -> Structure:
    """A structure of `TensorArray`s as one of tensors."""
    return tf.nest.map_structure(lambda array: array.stack(), arrays)
