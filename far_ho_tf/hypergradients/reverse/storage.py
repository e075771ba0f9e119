"""What a run in reverse mode keeps: which states, and how much of each step."""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from far_ho_tf.graphs.buffers import capacity
from far_ho_tf.hypergradients.costs import state_bytes
from far_ho_tf.hypergradients.reverse.binomial import Itinerary, binomial
from far_ho_tf.hypergradients.reverse.costs import states_within
from far_ho_tf.hypergradients.reverse.residuals import WORTH_KEEPING, Keeping
from far_ho_tf.problem.pure_problem import PureProblem

# Bytes of residuals that may be kept of a run even where its states take less.
_RESIDUALS = 2**28
# Bytes that an itinerary takes for each step, measured.
_ITINERARY = 75


class Storage(NamedTuple):
    """What a run in reverse mode keeps.

    Attributes:
        states: How many states at any time.
        segment: How many consecutive steps are visited backwards with all their states
            and residuals kept; 0: one at a time.
        keeping: A `Keeping`: what is kept of a step; `None`: its state alone.
    """

    states: int
    segment: int = 0
    keeping: Keeping | None = None


class ReverseBuffers(NamedTuple):
    """What a program in reverse mode holds.

    Attributes:
        steps: The most steps of a run.
        storage: The `Storage` for which there is room.
        all_states: Whether all states are kept.
    """

    steps: int
    storage: Storage
    all_states: bool


@dataclasses.dataclass(frozen=True)
class StoragePolicy:
    """How it is chosen what runs keep.

    Args:
        checkpointing, truncation, memory_budget: See `ReverseHG`.
        keeps_residuals: Whether more is kept of a step than its state.
        residuals: Integer, bytes that those of a run may take where all states are
            kept, or as many as these take.
        worth_keeping: Multiplications behind an element from which it is kept.
    """

    checkpointing: int | str | None = None
    truncation: int | None = None
    memory_budget: int | None = None
    keeps_residuals: bool = True
    residuals: int = _RESIDUALS
    worth_keeping: int = WORTH_KEEPING

    def differentiated_steps(self, num_steps: int) -> int:
        """How many steps of so many are differentiated."""
        return min(num_steps, self.truncation or num_steps)

    def storage(self, problem: PureProblem, num_steps: int) -> Storage:
        """What a run of so many steps keeps."""
        count = self.differentiated_steps(num_steps)
        if self.memory_budget is not None:
            fit = states_within(problem, count, self.memory_budget)
            return _some(fit, count)
        size = state_bytes(problem)
        if self.checkpointing is None:
            limit = max(size, self.residuals // capacity(count, size))
            return Storage(count, count, self._keeping(limit))
        if self.checkpointing != "sqrt":
            return _some(int(self.checkpointing), count)
        # Who asks for that is short of memory: no more than another state each.
        keeping = self._keeping(size)
        length = _segment(count)
        states = length + math.ceil(count / length)
        if states >= count:
            return Storage(count, count, keeping)
        return Storage(states, length, keeping)

    def _keeping(self, limit: int) -> Keeping | None:
        return Keeping(limit, self.worth_keeping) if self.keeps_residuals else None

    def buffers(self, problem: PureProblem, num_steps: int) -> ReverseBuffers:
        """What a program for so many steps, and for fewer, holds."""
        count = self.differentiated_steps(num_steps)
        storage = self.storage(problem, num_steps)
        steps = capacity(num_steps)
        room = capacity(count, state_bytes(problem))
        if storage.states == count:
            states = min(room, self.truncation or room)
            if self.memory_budget is not None:
                states = states_within(problem, states, self.memory_budget)
            storage = storage._replace(states=states, segment=states)
            return ReverseBuffers(steps, storage, True)
        if storage.segment:
            size = _segment(room)
            storage = storage._replace(states=2 * size, segment=size)
        return ReverseBuffers(steps, storage, False)

    def held(self, problem: PureProblem, num_steps: int) -> int:
        """The bytes, at least, that are kept of a run of so many steps."""
        _, storage, all_states = self.buffers(problem, num_steps)
        size = storage.states * state_bytes(problem)
        if not (all_states or storage.segment):
            size += _ITINERARY * num_steps
        return size

    def itinerary(
        self, problem: PureProblem, num_steps: int
    ) -> tuple[()] | tf.Tensor | Itinerary:
        """What a program must be told: the steps of a segment, or an `Itinerary`."""
        count = self.differentiated_steps(num_steps)
        storage = self.storage(problem, num_steps)
        if storage.states == count:
            return ()
        if storage.segment:
            return tf.constant(storage.segment)
        return _itinerary(count, storage.states)


def _segment(count: int) -> int:
    """The steps of a segment of so many."""
    return math.isqrt(count - 1) + 1


def _some(states: int, count: int) -> Storage:
    return Storage(states) if states < count else Storage(count, count)


@functools.lru_cache(maxsize=16)
def _itinerary(count: int, num_states: int) -> Itinerary:
    """The `Itinerary`, its vectors as long as those of others."""

    def tensor(values: np.ndarray | int) -> tf.Tensor:
        values = np.asarray(values)
        if values.ndim:
            values = np.pad(values, (0, capacity(len(values)) - len(values)))
        return tf.constant(values, tf.int32)

    with tf.init_scope():
        return Itinerary(*map(tensor, binomial(count, num_states)))  # pyright: ignore[reportArgumentType]
