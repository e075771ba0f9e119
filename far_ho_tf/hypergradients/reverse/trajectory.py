"""What a reverse run keeps of its states, and how it visits them backwards."""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.hypergradients.interfaces import Visit
from far_ho_tf.hypergradients.reverse.binomial import Itinerary
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.window import Window
from far_ho_tf.hypergradients.run import read, write
from far_ho_tf.variables.state import State


class Trajectory(abc.ABC):
    """The states of the steps from `first` to the last of a run.

    Args:
        run: A `Run`.
        first: Scalar int32 tensor, or 0.
    """

    def __init__(self, run: ReverseRun, first: int | tf.Tensor) -> None:
        self._run = run
        self._first = first

    @abc.abstractmethod
    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]:
        """Trains to the end.

        Args:
            state: The `State` before the first of these steps.
            logs: `Run.logs`.

        Returns:
            Final `State`, logs, and what was kept.
        """

    @abc.abstractmethod
    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure:
        """Visits the steps from the last to the first.

        Args:
            kept: From `record`.
            choices: What the dynamics chose, by step: `TensorArray`s.
            visit: Callable(step, state, choice, carry) -> carry; where the run has a
                `split`, and the trajectory keeps them, also of `ForPullback`.
            carry: Structure of tensors.

        Returns:
            The carry.
        """

    def _backwards(
        self,
        body: Callable[..., tuple[Structure, ...]],
        carry: Structure,
        *others: Structure,
    ) -> list[Any]:
        """A loop down the steps; returns the carry and the others."""
        _, *carried = tf.while_loop(
            lambda step, *_: step >= self._first,
            body,
            (self._run.num_steps - 1, carry, *others),
            parallel_iterations=1,
        )
        return carried


class Stored(Trajectory):
    """All states and, where the run has a `split`, the residuals that it keeps.

    Args:
        run, first: See `Trajectory`.
        size: Python integer, the most steps.
    """

    def __init__(self, run: ReverseRun, first: int | tf.Tensor, size: int) -> None:
        super().__init__(run, first)
        self._window = Window(run, size)
        self._bounds = first, run.num_steps

    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]:
        def move(
            step: tf.Tensor, state: State, logs: Structure
        ) -> tuple[State, Structure, list[tf.Tensor]]:
            made, residuals = self._run.step_and_residuals(step, state)
            return made.state, write(logs, step, made.log), residuals

        kept = self._window.blank(state)
        return self._window.fill(move, *self._bounds, state, logs, kept)

    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure:
        return self._window.visit_backwards(*self._bounds, kept, choices, visit, carry)


class Segmented(Trajectory):
    """The first state of each segment; the others are computed again with it, and the
    residuals that the run's `split` keeps.

    Args:
        run, first: See `Trajectory`.
        length: Scalar int32 tensor, the steps of a segment.
        size: Python integer, the most segments, and the most steps of one.

    Source: Chen et al. 2016 (sublinear memory).
    """

    def __init__(
        self, run: ReverseRun, first: int | tf.Tensor, length: tf.Tensor, size: int
    ) -> None:
        super().__init__(run, first)
        self._length = length
        self._size = size
        self._window = Window(run, size)

    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]:
        run = self._run

        def move(
            step: tf.Tensor, state: State, logs: Structure
        ) -> tuple[State, Structure]:
            state, log = run.step(step, state)
            return state, write(logs, step, log)

        def segment(
            step: tf.Tensor, state: State, logs: Structure, starts: Structure
        ) -> tuple[Structure, ...]:
            starts = write(starts, (step - self._first) // self._length, state)
            end = tf.minimum(step + self._length, run.num_steps)
            return end, *run.loop(move, step, end, state, logs), starts

        starts = run.arrays(state, self._size)
        _, state, logs, starts = tf.while_loop(
            lambda step, *_: step < run.num_steps,
            segment,
            (tf.convert_to_tensor(self._first), state, logs, starts),
            parallel_iterations=1,
        )
        return state, logs, (starts, self._window.blank(state))

    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure:
        starts, window = kept

        def again(
            step: tf.Tensor, state: State, nothing: tuple[()]
        ) -> tuple[State, tuple[()], list[tf.Tensor]]:
            choice = read(choices, step)
            state, residuals = self._run.redo_and_residuals(step, state, choice)
            return state, nothing, residuals

        def segment(
            step: tf.Tensor, carry: Structure, window: Structure
        ) -> tuple[tf.Tensor, Structure, Structure]:
            index = (step - self._first) // self._length
            first = self._first + index * self._length
            bounds, state = (first, step + 1), read(starts, index)
            *_, window = self._window.fill(again, *bounds, state, (), window)
            carry = self._window.visit_backwards(*bounds, window, choices, visit, carry)
            return first - 1, carry, window

        carry, _ = self._backwards(segment, carry, window)
        return carry


class Recomputed(Trajectory):
    """Some of the states; the others are computed again from them.

    Args:
        run, first: See `Trajectory`.
        itinerary: The `Itinerary` of the steps, of tensors.
        num_states: Python integer, the states that are kept at any time.

    Source: Griewank and Walther 2000; see `binomial`.
    """

    def __init__(
        self,
        run: ReverseRun,
        first: int | tf.Tensor,
        itinerary: Itinerary,
        num_states: int,
    ) -> None:
        super().__init__(run, first)
        self._num_states = num_states
        self._itinerary = itinerary

    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]:
        def move(
            step: tf.Tensor, state: State, logs: Structure
        ) -> tuple[State, Structure]:
            state, log = self._run.step(step, state)
            return state, write(logs, step, log)

        kept = write(self._run.arrays(state, self._num_states + 1), 0, state)
        legs = (tf.constant(0), self._itinerary.num_forward)
        return self._climb(move, legs, self._first, state, logs, kept)

    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure:
        def move(
            step: tf.Tensor, state: State, nothing: tuple[()]
        ) -> tuple[State, tuple[()]]:
            return self._run.redo(step, state, read(choices, step)), nothing

        def body(
            step: tf.Tensor, carry: Structure, kept: Structure
        ) -> tuple[tf.Tensor, Structure, Structure]:
            way, index = self._itinerary, step - self._first
            slot, position = way.restore[index], way.position[index]
            legs = way.begin[index], way.end[index]
            state, _, kept = self._climb(
                move, legs, self._first + position, read(kept, slot), (), kept
            )
            carry = visit(step, state, read(choices, step), carry)
            return step - 1, carry, kept

        carry, _ = self._backwards(body, carry, kept)
        return carry

    def _climb(
        self,
        move: Callable[..., tuple[State, Structure]],
        legs: tuple[tf.Tensor, int | tf.Tensor],
        step: int | tf.Tensor,
        state: State,
        logs: Structure,
        kept: Structure,
    ) -> tuple[State, Structure, Structure]:
        """Advances along legs, and puts the state at the end of each into its slot."""

        def leg(
            index: tf.Tensor,
            step: tf.Tensor,
            state: State,
            logs: Structure,
            kept: Structure,
        ) -> tuple[Structure, ...]:
            target = self._first + self._itinerary.targets[index]
            state, logs = self._run.loop(move, step, target, state, logs)
            kept = write(kept, self._itinerary.slots[index], state)
            return index + 1, target, state, logs, kept

        begin, end = legs
        _, _, *reached = tf.while_loop(
            lambda index, *_: index < end,
            leg,
            (begin, tf.convert_to_tensor(step), state, logs, kept),
            parallel_iterations=1,
        )
        return reached  # pyright: ignore[reportReturnType]
