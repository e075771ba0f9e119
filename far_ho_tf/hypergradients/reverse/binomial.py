"""Which states to keep, and when: the binomial itinerary."""

import math
from typing import NamedTuple

import numpy as np


class Itinerary(NamedTuple):
    """A way over a stack of states, as arrays that compiled loops read.

    Forwards and backwards, the run advances along *legs*: to a target step, at which
    the state is put into a slot. The steps are visited from the last to the first:
    for step t the state in slot `restore[t]`, that before step `position[t]`, is
    advanced along the legs `begin[t]` to `end[t]`, the last of which ends at t.
    Beyond the slots there is one more, that takes what need not be kept.

    Attributes:
        targets, slots: Vectors: the legs, those of the forward run first.
        num_forward: Number of legs of the forward run.
        restore, position, begin, end: Vectors, an element for each step.
    """

    targets: np.ndarray
    slots: np.ndarray
    num_forward: int
    restore: np.ndarray
    position: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def binomial(num_steps: int, num_states: int) -> Itinerary:
    """The `Itinerary` that recomputes the fewest steps with so many states kept.

    Args:
        num_steps: Integer, the steps to reverse.
        num_states: Integer, the states that are kept at any time.

    Returns:
        An `Itinerary`.

    Source: Griewank and Walther 2000, "Algorithm 799: revolve".
    """
    stack = [0]
    targets, slots = [], []

    def climb(goal: int) -> None:
        """Legs from the top of the stack, past steps to keep, to a goal."""
        while len(stack) < num_states and goal > stack[-1]:
            free = num_states - len(stack)
            stack.append(stack[-1] + _split(goal + 1 - stack[-1], free + 1))
            targets.append(stack[-1])
            slots.append(len(stack) - 1)
        if stack[-1] != goal:
            targets.append(goal)
            slots.append(num_states)

    climb(num_steps)
    num_forward = len(targets)
    rows = np.zeros([4, num_steps], np.int32)
    for step in reversed(range(num_steps)):
        while stack[-1] > step:  # Passed; at first the final state may be kept.
            stack.pop()
        restore, position, begin = len(stack) - 1, stack[-1], len(targets)
        if position < step:
            climb(step)
        rows[:, step] = restore, position, begin, len(targets)
    return Itinerary(
        np.array(targets, np.int32), np.array(slots, np.int32), num_forward, *rows
    )


def num_recomputed(num_steps: int, num_states: int) -> int:
    """How many steps the itinerary computes again, before it reverses them.

    Source: Griewank and Walther 2000, theorem 1.
    """
    runs = 0
    while math.comb(num_states + runs, num_states) <= num_steps:
        runs += 1
    computed = runs * (num_steps + 1) - math.comb(num_states + runs, runs - 1)
    return computed - num_steps


def _split(length: int, states: int) -> int:
    """How far to advance before the next state is kept.

    Args:
        length: Steps from the last kept state to the end, at least 2.
        states: Number of states, the last kept one among them, at least 2.
    """
    runs = 0
    while math.comb(states + runs, states) < length:
        runs += 1
    low = max(
        math.comb(states + runs - 2, states),
        length - math.comb(states - 1 + runs, states - 1),
    )
    return max(1, min(low, length - 1))
