"""All that a `HyperOptimizer`'s next hyper-iteration depends on, read and restored."""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import warn_user
from far_ho_tf.data import Source
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.resuming.description import optimizers_of
from far_ho_tf.resuming.interfaces import Runs, Tuner
from far_ho_tf.variables.identity import assign, read
from far_ho_tf.variables.state import Position


def runs_of(tuner: Tuner) -> int:
    """How many hyper-iterations it has made, in all its fits and runs."""
    return tuner.inner_runs.outer_step


def capture(tuner: Tuner) -> dict[str, Any]:
    """The state of a tuner, as a structure for `encoding.to_bytes`."""
    return {
        "hyperparameters": read(tuner.hyperparameters),
        "optimizers": [read(one.variables) for one in optimizers_of(tuner)],
        "good": tuner._good,
        "position": _position(tuner.inner_runs),
        "problems": [
            {"start": problem.start, "owned": read(problem.owned)}
            for problem in _problems(tuner)
        ],
        "data": [source.position() for source in _sources(tuner)],
    }


def restore(tuner: Tuner, state: dict[str, Any], changed: Collection[str] = ()) -> None:
    """Brings a tuner, its models and its data to a state of `capture`.

    Args:
        tuner: The `HyperOptimizer`.
        state: What `capture` returned.
        changed: Those of `description.CATEGORIES` that were changed on purpose: other
            data are read from their start, and other outer optimizers keep their
            numbers.

    Raises:
        ValueError: If the data cannot be read again. The tuner is as it was then.
    """
    if "data" not in changed:
        for source, position in zip(_sources(tuner), state["data"], strict=True):
            source.replay(position)
    assign(tuner.hyperparameters, state["hyperparameters"])
    if "outer_optimizer" in changed:
        _restore_changed(optimizers_of(tuner), state["optimizers"])
    else:
        pairs = zip(optimizers_of(tuner), state["optimizers"], strict=True)
        for optimizer, values in pairs:
            assign(optimizer.variables, values)
    tuner._good = state["good"]
    _restore_position(tuner.inner_runs, state["position"])
    if not tuner.hypergradient.has_tangents:  # Of another mode than before.
        tuner.inner_runs.positions = [
            position._replace(tangents=None) for position in tuner.inner_runs.positions
        ]
    for problem, part in zip(_problems(tuner), state["problems"], strict=True):
        problem.start = _tensors(part["start"])
    tuner.inner_runs.write_back()
    for problem, part in zip(_problems(tuner), state["problems"], strict=True):
        assign(problem.owned, part["owned"])


def _restore_changed(
    optimizers: list[keras.optimizers.Optimizer], saved: list[list[np.ndarray]]
) -> None:
    """Moments and counts of optimizers with other numbers; of another kind none."""
    if len(optimizers) != len(saved):
        return
    for optimizer, values in zip(optimizers, saved, strict=True):
        shapes = [tuple(variable.shape) for variable in optimizer.variables]
        if shapes == [np.shape(value) for value in values]:
            rate = getattr(optimizer, "_learning_rate", None)
            pairs = zip(optimizer.variables, values, strict=True)
            kept = [(v, value) for v, value in pairs if v is not rate]
            assign([v for v, _ in kept], [value for _, value in kept])


def _position(runs: Runs) -> dict[str, Any]:
    """Where `InnerRuns` stand: all problems are at the same step."""
    one = runs.positions[0]
    return {
        "states": [position.state for position in runs.positions],
        "tangents": [position.tangents for position in runs.positions],
        "first_step": one.first_step,
        "outer_step": one.outer_step,
        "episode": runs.episode,
    }


def _restore_position(runs: Runs, saved: dict[str, Any]) -> None:
    counts = saved["first_step"], saved["outer_step"]
    runs.positions = [
        Position(_tensors(state), _tensors(tangents), *counts)
        for state, tangents in zip(saved["states"], saved["tangents"], strict=True)
    ]
    runs.episode = saved["episode"]


def warn_of_orders(tuner: Tuner) -> None:
    """Says so where data that shuffle would not come in the same order again."""
    seen = []
    for index, problem in enumerate(_problems(tuner)):
        for name in ("inner_data", "outer_data"):
            for dataset, seeded in getattr(problem, name).shuffles():
                if not seeded or any(dataset is other for other in seen):
                    why = "with others" if seeded else "without a seed"
                    warn_user(
                        f"`{name}` of problem {index} shuffles {why}, so that a run "
                        "that is stopped cannot go on as it would have. Remedy: a "
                        "`shuffle(..., seed=...)` of its own, or without `seed` after "
                        "`keras.utils.set_random_seed`."
                    )
                seen.append(dataset)


def _problems(tuner: Tuner) -> list[PureProblem]:
    return [problem.pure for problem in tuner.problems]


def _sources(tuner: Tuner) -> list[Source]:
    """The data of all problems, in the order in which they are read."""
    return [
        source
        for problem in _problems(tuner)
        for source in (problem.inner_data, problem.outer_data)
    ]


def _tensors(part: Structure) -> Structure:
    """Arrays as tensors; numbers and `None` stay."""
    return tf.nest.map_structure(
        lambda leaf: tf.constant(leaf) if isinstance(leaf, np.ndarray) else leaf, part
    )
