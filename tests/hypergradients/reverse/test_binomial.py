"""The binomial itinerary: it ends where it should, at the least cost."""

import functools

import numpy as np
import pytest

from far_ho_tf.hypergradients.reverse.binomial import binomial, num_recomputed


@functools.cache
def fewest_steps(length, states):
    """Steps to advance so that all can be reversed, by trying every way."""
    if length == 1:
        return 0
    if states == 1:
        return length * (length - 1) // 2
    return min(
        first + fewest_steps(length - first, states - 1) + fewest_steps(first, states)
        for first in range(1, length)
    )


def simulate(plan, num_steps, num_states):
    """Follows a plan; returns the number of steps made forwards."""
    kept = {0: 0}

    def follow(begin, end, step):
        advanced = []
        for target, slot in zip(
            plan.targets[begin:end], plan.slots[begin:end], strict=True
        ):
            assert target > step
            advanced.append(int(target - step))
            kept[slot], step = int(target), int(target)
        return step, advanced

    step, forward = follow(0, plan.num_forward, 0)
    assert step == num_steps
    total = sum(forward)
    for step in reversed(range(num_steps)):
        assert kept[plan.restore[step]] == plan.position[step]
        reached, advanced = follow(
            plan.begin[step], plan.end[step], plan.position[step]
        )
        assert reached == step
        total += sum(advanced)
    assert max(kept) <= num_states
    return total


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 20, 41])
def test_no_schedule_takes_fewer_steps(num_steps):
    for num_states in range(1, 10):
        plan = binomial(num_steps, num_states)
        # The final state is visited first, at no cost.
        steps = simulate(plan, num_steps, num_states)
        assert steps == fewest_steps(num_steps + 1, num_states)


def test_steps_computed_again_are_counted():
    for num_steps in (1, 2, 3, 10, 37, 100):
        for states in range(1, num_steps + 1):
            again = np.arange(num_steps) - binomial(num_steps, states).position
            assert num_recomputed(num_steps, states) == np.sum(again)
