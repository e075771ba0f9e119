"""What makes a run, as plain values that two of them are compared by."""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.src.utils import rng_utils

from far_ho_tf._types import Variable
from far_ho_tf.data.source import checksum
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.resuming.interfaces import Tuner
from far_ho_tf.variables.identity import dtype_of, is_variable, path_of, read
from far_ho_tf.variables.state import layout

# What `Checkpoint(allow=...)`, which explains them, may name.
CATEGORIES = (
    *("outer_optimizer", "hypergradient", "dynamics", "objectives", "data"),
    *("constraints", "initial_values", "fit"),
)
# Elements up to which values are told, and not their checksum.
_SHORT = 8
# How many differences a message lists.
_MOST = 8


class Difference(NamedTuple):
    """Where two descriptions differ.

    Attributes:
        place: Its name, such as "dynamics[0].numbers.momentum".
        expected, received: Plain values.
    """

    place: str
    expected: Any
    received: Any

    @property
    def category(self) -> str:
        """The first part of the place."""
        return self.place.partition(".")[0].partition("[")[0]

    def __str__(self) -> str:
        return f"{self.place}={self.expected!r} then, {self.received!r} now"


def describe(tuner: Tuner) -> dict[str, Any]:
    """What a saved state belongs to, by `CATEGORIES` and what cannot change at all."""
    problems = [problem.pure for problem in tuner.problems]
    made = [problem.report.fingerprints() for problem in problems]
    description = {
        "hyperparameters": _specs(tuner.hyperparameters),
        "variables": [_layout_of(problem) for problem in problems],
        "outer_optimizer": [_of_optimizer(one) for one in optimizers_of(tuner)],
        "hypergradient": repr(tuner.hypergradient),
        "dynamics": [
            _of_dynamics(problem) | {"rule": prints["dynamics"]}
            for problem, prints in zip(problems, made, strict=True)
        ],
        "objectives": [{name: prints[name] for name in _OBJECTIVES} for prints in made],
        "data": [
            {
                "inner_data": problem.inner_data.description(),
                "outer_data": problem.outer_data.description(),
            }
            for problem in problems
        ],
        "constraints": {
            "hyperparameters": _constraints(tuner.hyperparameters),
            "variables": [_constraints(problem.variables) for problem in problems],
        },
        "initial_values": {
            "hyperparameters": {
                path_of(one): _values(read([one])[0]) for one in tuner.hyperparameters
            },
            "map": [prints["initial_values"] for prints in made],
            "weights": [
                checksum([problem.start, problem.snapshots]) for problem in problems
            ],
        },
    }
    return json.loads(json.dumps(description, default=lambda value: str(type(value))))


_OBJECTIVES = ("inner_objective", "outer_objective")
# What is of another make with other versions of TensorFlow or Keras.
_MADE = ("inner_objective", "outer_objective", "rule", "map")


def differences(
    expected: dict[str, Any], received: dict[str, Any], same_versions: bool = True
) -> list[Difference]:
    """Where two descriptions differ.

    Args:
        expected, received: Descriptions.
        same_versions: Whether graphs were made by the same versions, so that they can
            be compared.
    """
    found = _differences(expected, received, "")
    if same_versions:
        return found
    return [one for one in found if not any(f".{name}" in one.place for name in _MADE)]


def _differences(expected: Any, received: Any, place: str) -> list[Difference]:
    if expected == received:
        return []
    pairs = []
    if isinstance(expected, dict) and isinstance(received, dict):
        names = [*expected, *(name for name in received if name not in expected)]
        pairs = [
            (f"{place}.{n}".removeprefix("."), expected.get(n), received.get(n))
            for n in names
        ]
    elif isinstance(expected, list) and isinstance(received, list):
        both = itertools.zip_longest(expected, received)
        pairs = [(f"{place}[{index}]", *pair) for index, pair in enumerate(both)]
    if not pairs:
        return [Difference(place, expected, received)]
    return [
        one for name, mine, theirs in pairs for one in _differences(mine, theirs, name)
    ]


def listed(found: Sequence[Difference]) -> str:
    """Differences in words."""
    more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(map(str, found[:_MOST])) + more


def versions() -> dict[str, str]:
    """Those of the packages by which a run is made."""
    own = sys.modules["far_ho_tf"]
    return {
        "far_ho_tf": own.__version__,
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "NumPy": np.__version__,
    }


def random_seed() -> int | None:
    """What `keras.utils.set_random_seed` was last called with, or `None`."""
    return rng_utils.get_random_seed()


def optimizers_of(tuner: Tuner) -> list[keras.optimizers.Optimizer]:
    """Those of the hyperparameters."""
    given = tuner.optimizer
    return given if isinstance(given, list) else [given]


def _layout_of(problem: PureProblem) -> dict[str, Any]:
    return {
        "variables": _specs(problem.variables),
        "owned": _specs(problem.owned),
        "extra": _specs(problem.extra_variables),
        "slots": layout(problem.dynamics.initial_slots(problem.start.variables)),
    }


def _of_dynamics(problem: PureProblem) -> dict[str, Any]:
    dynamics = problem.dynamics.dynamics
    optimizer = getattr(dynamics, "optimizer", None)
    return {
        "class": type(dynamics).__name__,
        "numbers": {name: _number(value) for name, value in dynamics.numbers.items()},
        "optimizer": optimizer and _of_optimizer(optimizer),
    }


def _of_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Its class and numbers, without the name, which Keras counts up."""
    config = optimizer.get_config()
    config.pop("name", None)
    return {"class": type(optimizer).__name__, "config": config}


def _number(value: Any) -> Any:
    """An argument of dynamics; see `far_ho_tf.dynamics.base`."""
    if is_variable(value):
        return f"`{path_of(value)}`"
    if isinstance(value, Mapping):
        return {str(pattern): _number(one) for pattern, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [[_owner(owner), _number(one)] for owner, one in value]
    if isinstance(value, Schedule):
        return repr(value)
    if callable(value):
        return type(value).__name__  # What it computes is in the rule.
    return _values(value)


def _owner(owner: Any) -> str:
    return path_of(owner) if is_variable(owner) else str(getattr(owner, "path", owner))


def _values(value: Any) -> Any:
    """A number, or few; of many a checksum."""
    array = np.asarray(value)
    if array.size <= _SHORT:
        return array.tolist()
    return f"{array.dtype} {array.shape} with checksum {checksum(tf.constant(array))}"


def _constraints(variables: Iterable[Variable]) -> list[Any]:
    found = [getattr(variable, "constraint", None) for variable in variables]
    return [
        one and {"class": type(one).__name__, "config": _config(one)} for one in found
    ]


def _config(constraint: keras.constraints.Constraint) -> dict[str, Any]:
    config = constraint.get_config()
    return {name: _values(value) for name, value in config.items()} or {
        name: _values(value)
        for name, value in vars(constraint).items()
        if isinstance(value, (int, float, np.ndarray, tf.Tensor))
    }


def _specs(variables: Iterable[Variable]) -> list[str]:
    return [
        f"{path_of(variable)}: {dtype_of(variable).name} {tuple(variable.shape)}"
        for variable in variables
    ]
