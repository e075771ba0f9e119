"""What is needed here of a `HyperOptimizer`, which is made in a folder below."""

from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.hypergradients import HyperGradient, NonFiniteError
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.variables.state import Position


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
