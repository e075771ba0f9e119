"""What is kept of consecutive steps, all of which are visited backwards."""

from collections.abc import Callable

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.hypergradients.interfaces import Visit
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.split_step import ForPullback
from far_ho_tf.hypergradients.run import read, write
from far_ho_tf.variables.state import State


class Window:
    """The states of some consecutive steps and, where the run has a `split`, the new
    state of the last of them and the residuals that are kept.

    Args:
        run: A `Run`.
        size: Python integer, the most steps.
    """

    def __init__(self, run: ReverseRun, size: int) -> None:
        self._run = run
        self._split = run.split
        self._size = size

    def blank(self, state: State) -> tuple[Structure, Structure]:
        """`TensorArray`s for states like one, and for residuals."""
        states = self._run.arrays(state, self._size + (self._split is not None))
        return states, self._run.arrays(self._run.kept, self._size)

    def fill(
        self,
        move: Callable[..., tuple[State, Structure, list[tf.Tensor]]],
        first: int | tf.Tensor,
        end: tf.Tensor,
        state: State,
        logs: Structure,
        kept: Structure,
    ) -> tuple[State, Structure, Structure]:
        """Moves on from the first step to the end, and keeps what is on the way.

        Args:
            move: Callable(step, state, logs) -> (new state, logs, residuals).
            first, end: The window's first step, and the one after its last.
            state, logs: What is moved.
            kept: From `blank`.

        Returns:
            State, logs, and what was kept.
        """

        def body(
            step: tf.Tensor,
            state: State,
            logs: Structure,
            states: Structure,
            residuals: Structure,
        ) -> tuple[Structure, ...]:
            index = step - first
            new_state, logs, made = move(step, state, logs)
            states = write(states, index, state)
            residuals = write(residuals, index, made)
            return step + 1, new_state, logs, states, residuals

        _, state, logs, states, residuals = tf.while_loop(
            lambda step, *_: step < end,
            body,
            (tf.convert_to_tensor(first), state, logs, *kept),
            parallel_iterations=1,
            maximum_iterations=self._size,
        )
        if self._split is not None:
            states = write(states, end - first, state)
        return state, logs, (states, residuals)

    def visit_backwards(
        self,
        first: int | tf.Tensor,
        end: tf.Tensor,
        kept: Structure,
        choices: Structure,
        visit: Visit,
        carry: Structure,
    ) -> Structure:
        """Visits the window's steps from the last to the first: `Trajectory.replay`."""
        states, residuals = kept

        def body(step: tf.Tensor, carry: Structure) -> tuple[tf.Tensor, Structure]:
            index = step - first
            state, choice = read(states, index), read(choices, step)
            if self._split is None:
                return step - 1, visit(step, state, choice, carry)
            kept = ForPullback(read(states, index + 1), read(residuals, index))
            return step - 1, visit(step, state, choice, carry, kept)

        _, carry = tf.while_loop(
            lambda step, _: step >= first,
            body,
            (tf.convert_to_tensor(end - 1), carry),
            parallel_iterations=1,
            maximum_iterations=self._size,
        )
        return carry
