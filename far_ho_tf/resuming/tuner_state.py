"""All that a `HyperOptimizer`'s next hyper-iteration depends on, read and restored."""

import itertools
import json
import re
import sys
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.checks import warn_user
from far_ho_tf.data import Source
from far_ho_tf.hypergradients import HyperGradient, NonFiniteError
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import assign, dtype_of, path_of, read
from far_ho_tf.variables.state import Position, layout


class Runs(Protocol):
    """The `InnerRuns` of a `HyperOptimizer`."""

    positions: list[Position]
    episode: int

    @property
    def outer_step(self) -> int: ...

    def write_back(self) -> None: ...


class Tuner(Protocol):
    """A `HyperOptimizer`, in and out of its `fit`."""

    problems: list[BilevelProblem]
    hyperparameters: list[Variable]
    hypergradient: HyperGradient
    optimizer: keras.optimizers.Optimizer | list[keras.optimizers.Optimizer]
    strategy: tf.distribute.Strategy | None
    inner_runs: Runs
    history: keras.callbacks.History
    divergence: NonFiniteError | None
    stop_training: bool
    initial_iteration: int
    _good: list[np.ndarray] | None

    def get_weights(self) -> list[np.ndarray]: ...

    def set_weights(self, weights: list[np.ndarray]) -> None: ...


def runs_of(tuner: Tuner) -> int:
    """How many hyper-iterations it has made, in all its fits and runs."""
    return tuner.inner_runs.outer_step


def capture(tuner: Tuner) -> dict[str, Any]:
    """The state of a tuner, as a structure for `encoding.to_bytes`."""
    return {
        "hyperparameters": read(tuner.hyperparameters),
        "optimizers": [read(one.variables) for one in _optimizers(tuner)],
        "good": tuner._good,
        "position": _position(tuner.inner_runs),
        "problems": [
            {"start": problem.start, "owned": read(problem.owned)}
            for problem in _problems(tuner)
        ],
        "data": [source.position() for source in _sources(tuner)],
    }


def restore(tuner: Tuner, state: dict[str, Any]) -> None:
    """Brings a tuner, its models and its data to a state of `capture`.

    Raises:
        ValueError: If the data cannot be read again. The tuner is as it was then.
    """
    for source, position in zip(_sources(tuner), state["data"], strict=True):
        source.replay(position)
    assign(tuner.hyperparameters, state["hyperparameters"])
    for optimizer, values in zip(_optimizers(tuner), state["optimizers"], strict=True):
        assign(optimizer.variables, values)
    tuner._good = state["good"]
    _restore_position(tuner.inner_runs, state["position"])
    for problem, part in zip(_problems(tuner), state["problems"], strict=True):
        problem.start = _tensors(part["start"])
    tuner.inner_runs.write_back()
    for problem, part in zip(_problems(tuner), state["problems"], strict=True):
        assign(problem.owned, part["owned"])


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


def describe(tuner: Tuner) -> dict[str, Any]:
    """What a saved state belongs to, as a structure of plain values."""
    description = {
        "hyperparameters": _specs(tuner.hyperparameters),
        "hypergradient": repr(tuner.hypergradient),
        "optimizers": [
            _describe_optimizer(one) | {"variables": _specs(one.variables, "name")}
            for one in _optimizers(tuner)
        ],
        "problems": [_describe_problem(problem) for problem in _problems(tuner)],
    }
    return json.loads(json.dumps(description, default=lambda value: str(type(value))))


def difference(
    expected: Any, received: Any, place: str = ""
) -> tuple[str, Any, Any] | None:
    """Where two descriptions differ first.

    Returns:
        Its name and both values; `None` where they are equal.
    """
    if expected == received:
        return None
    pairs = []
    if isinstance(expected, dict) and isinstance(received, dict):
        names = [*expected, *(name for name in received if name not in expected)]
        pairs = [(f".{n}", expected.get(n), received.get(n)) for n in names]
    elif isinstance(expected, list) and isinstance(received, list):
        both = itertools.zip_longest(expected, received)
        pairs = [(f"[{index}]", *pair) for index, pair in enumerate(both)]
    for name, one, other in pairs:
        found = difference(one, other, place + name)
        if found:
            return found
    return place.removeprefix("."), expected, received


def remedy(expected: Any, received: Any) -> str:
    """What to do where a run differs from the one that was saved.

    Args:
        expected, received: Where they differ first; see `difference`.
    """
    names = [re.sub(r"_\d+(?=[/:])", "", str(one)) for one in (expected, received)]
    if names[0] == names[1]:
        return (
            "The names differ by Keras' counters alone: call "
            "keras.backend.clear_session() before the model is made, as where a cell "
            "of a notebook is run again."
        )
    return "Continue that one, or begin this one in another directory."


def versions() -> str:
    """Those that a checkpoint was saved with."""
    package = sys.modules["far_ho_tf"]
    return (
        f"far_ho_tf {package.__version__}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}"
    )


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


def _optimizers(tuner: Tuner) -> list[keras.optimizers.Optimizer]:
    given = tuner.optimizer
    return given if isinstance(given, list) else [given]


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


def _specs(variables: list[Variable], name: str = "path") -> list[str]:
    return [
        f"{_name(variable, name)}: {dtype_of(variable).name} {tuple(variable.shape)}"
        for variable in variables
    ]


def _name(variable: Variable, name: str) -> str:
    if name == "path" or not isinstance(variable, keras.Variable):
        return path_of(variable)
    return variable.name


def _describe_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Its class and numbers, without the name, which Keras counts up."""
    config = optimizer.get_config()
    config.pop("name", None)
    return {"class": type(optimizer).__name__, "config": config}


def _describe_problem(problem: PureProblem) -> dict[str, Any]:
    dynamics = problem.dynamics.dynamics
    return {
        "variables": _specs(problem.variables),
        "owned": _specs(problem.owned),
        "extra": _specs(problem.extra_variables),
        "slots": layout(problem.dynamics.initial_slots(problem.start.variables)),
        "dynamics": type(dynamics).__name__,
        "numbers": {
            name: value if isinstance(value, (int, float)) else type(value).__name__
            for name, value in dynamics.numbers.items()
        },
        "optimizer": type(getattr(dynamics, "optimizer", None)).__name__,
        "inner_data": problem.inner_data.description(),
        "outer_data": problem.outer_data.description(),
    }


def as_named_now(description: dict[str, Any]) -> dict[str, Any]:
    """What was saved under names that have changed since."""
    mode = description["hypergradient"].replace("keep_products=", "keep_residuals=")
    return description | {"hypergradient": mode}
