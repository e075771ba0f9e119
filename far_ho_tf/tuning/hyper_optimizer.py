"""The outer loop: hypergradient descent on hyperparameters."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import OuterOptimizer
from far_ho_tf.checks import (
    KERAS_NAMES,
    check_count,
    check_limit,
    check_steps,
    did_you_mean,
    shown,
    warn_user,
)
from far_ho_tf.distribution.strategies import check_strategy, in_scope_of, outside_scope
from far_ho_tf.graphs.functions import once_traced
from far_ho_tf.hypergradients import (
    HyperGradient,
    MeanResult,
    NonFiniteError,
    ReverseHG,
    Status,
)
from far_ho_tf.hypergradients.episodes import Episodes
from far_ho_tf.hyperparameters.hyperparameter import scalar_names
from far_ho_tf.notices import told_to
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.tuning.callbacks import (
    check_callbacks,
    progress_bar,
    with_checkpoint_last,
)
from far_ho_tf.tuning.inner_runs import InnerRuns, Result, check_mode
from far_ho_tf.tuning.outer_update import OuterUpdate
from far_ho_tf.variables.identity import assign, read


class HyperOptimizer:
    """Descends on hyperparameters along their hypergradient.

    Args:
        problem: A `BilevelProblem`, or a list of them with the same list of
            hyperparameters (seeds, folds, tasks), whose outer values and
            hypergradients are averaged.
        hypergradient: A `HyperGradient`; `far.ReverseHG()` by default.
        optimizer: A `keras.optimizers.Optimizer` for the hyperparameters, or
            its name; `keras.optimizers.Adam(0.01)` by default. It applies the
            constraints of the hyperparameters after each update, and clips
            hypergradients where it is made with `clipvalue`, `clipnorm` or
            `global_clipnorm`. For one learning rate per group, a list of pairs
            (hyperparameter or list of them, optimizer).
        strategy: `None`, for one device, or a `tf.distribute` strategy:
            `MirroredStrategy`, `MultiWorkerMirroredStrategy` or
            `OneDeviceStrategy`. For one problem each batch is split over the
            replicas, and the hypergradient is that of one device: the objectives
            must be means over the examples of a batch. Several problems or
            episodes are spread over the replicas instead, each as a whole.

    Attributes:
        problems: List of the problems.
        hyperparameters: List of the variables that they share.
        hypergradient: The `HyperGradient`.
        strategy: As given.
        inner_runs: The `InnerRuns`: where training stands.
        optimizer: The Keras optimizer, whose learning rate callbacks may
            change; a list of them where there are groups.
        history: The `keras.callbacks.History` of the last `fit`.
        status: The `Status` of the last hyper-iteration (a list, of a list of
            problems), or `None`.
        stop_training: Set by callbacks to end `fit`.
        divergence: The `NonFiniteError` or `DivergenceError` that ended the last
            `fit`, or `None`.
        initial_iteration: Integer, the hyper-iteration that the last `fit` began
            with: not 0 where a `Checkpoint` went on with one that was stopped.

    Raises:
        ValueError: If an argument is malformed, or problems do not share
            their hyperparameters.

    Example:

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(0.0, name="w")
    >>> target = far.Hyperparameter(0.0, name="target")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: (w - target) ** 2,
    ...     outer_objective=lambda: (w - 1.0) ** 2,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(0.25),
    ...     hyperparameters=[target],
    ... )
    >>> tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.5))
    >>> history = tuner.fit(hyper_iterations=20, num_steps=5, verbose=0)
    >>> round(float(target), 3)
    1.032

    Source: Franceschi et al. 2017, section 2 (the outer problem).
    """

    # What `fit` and `run` leave.
    history: keras.callbacks.History
    status: Status | list[Status | None] | None
    divergence: NonFiniteError | None
    _good: list[np.ndarray] | None

    def __init__(
        self,
        problem: BilevelProblem | Sequence[BilevelProblem],
        hypergradient: HyperGradient | None = None,
        optimizer: OuterOptimizer = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.problems = _check_problems(problem)
        self.hyperparameters = self.problems[0].hyperparameters
        self.hypergradient = hypergradient or ReverseHG()
        if not isinstance(self.hypergradient, HyperGradient):
            raise ValueError(
                "`hypergradient` must be a HyperGradient, such as `far.ReverseHG()` or "
                "`far.ForwardHG()`, and not a class or its name; an optimizer is given "
                f"as `optimizer=`. Received: {shown(hypergradient)}"
            )
        self.strategy = check_strategy(strategy)
        update = in_scope_of(
            self.hyperparameters, OuterUpdate, optimizer, self.hyperparameters
        )
        single = len(update.optimizers) == 1
        self.optimizer = update.optimizers[0] if single else update.optimizers
        self._update = outside_scope(once_traced(update.apply))
        taken = ("outer_value", "hypergradient_norm")
        self._named = scalar_names(self.hyperparameters, taken)
        self.stop_training = False
        self.history = self.status = None  # pyright: ignore[reportAttributeAccessIssue]
        self.divergence = None
        self.initial_iteration = 0
        self._good = None  # The hyperparameters of the last evaluation in `fit`.
        pure = [problem.pure for problem in self.problems]
        self.inner_runs = InnerRuns(pure, self.hypergradient, strategy)

    def __repr__(self) -> str:
        problems = (
            f"problem={self.problems[0]!r}"
            if len(self.problems) == 1
            else f"problems={len(self.problems)}"
        )
        several = isinstance(self.optimizer, list)
        optimizers = self.optimizer if several else [self.optimizer]
        names = ", ".join(type(one).__name__ for one in optimizers)
        return (
            f"HyperOptimizer({problems}, hypergradient={self.hypergradient!r}, "
            f"optimizer={names}, hyper_iterations={self.inner_runs.outer_step})"
        )

    @did_you_mean(**KERAS_NAMES)
    def run(
        self,
        num_steps: int,
        mode: str = "restart",
        episodes: int | Episodes | None = None,
    ) -> Result:
        """One hyper-iteration: train, hypergradient, outer update.

        Args:
            num_steps: Positive integer, inner steps T.
            mode: "restart" trains from Φ_0. "online" goes on from where the
                last run ended: with `ForwardHG` this is real-time
                hyperparameter optimization (RTHO), whose tangents count all
                steps since Φ_0, under the hyperparameters that each was made
                with; with `ReverseHG` it is the truncated online method, which
                counts the last `num_steps` steps only. "warm_restart" goes on
                too, but counts the last `num_steps` steps only in every mode;
                `"online"` after it counts from there.
            episodes: Where a data callable of the problem takes (step, episode), the
                episodes to average over: an integer n, for the next n that have not
                been seen, or a list of their numbers. With `mode="restart"` only.

        Returns:
            The `HyperGradientResult` at the hyperparameters before the update; of a
            list of problems a `MeanResult`.

        Raises:
            ValueError, NonFiniteError: As `HyperGradient.compute`; the
                hyperparameters stay as they were.
        """
        check_mode(mode)
        num_steps = check_steps(num_steps)
        result = self.inner_runs.advance(num_steps, mode, episodes)
        self.status = _status(result)
        self._update(result.hypergradients)
        return result

    @did_you_mean(**KERAS_NAMES)
    def fit(
        self,
        hyper_iterations: int,
        num_steps: int,
        mode: str = "restart",
        callbacks: keras.callbacks.Callback
        | Sequence[keras.callbacks.Callback]
        | None = None,
        verbose: int | str = 1,
        outer_limit: float | None = None,
        episodes: int | Episodes | None = None,
    ) -> keras.callbacks.History:
        """Runs many hyper-iterations.

        A hyper-iteration that diverges (NaN, infinity, or an outer value above
        `outer_limit`) ends it with a warning. What is kept then is the last
        good hyper-iteration: its hyperparameters, and in the model its state.

        Args:
            hyper_iterations: Positive integer. With a `Checkpoint` among the
                callbacks, those that were made before a stop count. Where they make
                few steps in all, `jit_compile="auto"` does not compile; `status` says
                so.
            num_steps, mode, episodes: See `run`. With `mode="online"`, `num_steps`
                is the number of steps between updates of the hyperparameters.
            callbacks: List of Keras callbacks. One that sets `stop_training` leaves
                hyperparameters and model as they were logged. `on_epoch_begin` and
                `on_epoch_end` are called for each hyper-iteration, the latter
                before the outer update, with `outer_value`,
                `hypergradient_norm` and the values of scalar hyperparameters,
                by name, in the logs. Their `model` is this object:
                `stop_training`, `optimizer`, `get_weights` and `set_weights`
                (of the hyperparameters) work, and so do
                `EarlyStopping("outer_value")`, which minimizes it,
                `ReduceLROnPlateau`, `CSVLogger` and the like; those that save
                a model are refused: see `Checkpoint`.
            verbose: 0 is silent, 1 (or "auto") a progress bar, 2 one line.
            outer_limit: Number; an outer value above it counts as divergence.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            NonFiniteError, DivergenceError: If the first hyper-iteration diverges:
                there is nothing good to keep.
        """
        hyper_iterations = check_count("hyper_iterations", hyper_iterations)
        num_steps = check_steps(num_steps)
        check_limit("outer_limit", outer_limit)
        check_mode(mode)
        bar = progress_bar(verbose) if verbose != 0 else None
        checkpoint = None
        if callbacks is not None:
            callbacks, checkpoint = with_checkpoint_last(check_callbacks(callbacks))
        callbacks = callbacks or []
        if bar:
            callbacks.append(bar)
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            model=self,
            epochs=hyper_iterations,
            verbose=verbose,
            steps=num_steps,
            mode=mode,
            episodes=episodes,
            outer_limit=outer_limit,
        )
        self.stop_training = False
        self.divergence = self._good = None
        self.initial_iteration = 0
        callbacks.on_train_begin()  # A `Checkpoint` brings these to where it was.
        self.history.epoch = list(range(self.initial_iteration))
        had_ended = self.stop_training or self.divergence
        first = hyper_iterations if had_ended else self.initial_iteration
        for iteration in range(first, hyper_iterations):
            callbacks.on_epoch_begin(iteration)
            try:
                with told_to(bar and bar.say):
                    result = self.inner_runs.advance(
                        num_steps, mode, episodes, outer_limit, hyper_iterations
                    )
            except NonFiniteError as error:
                if self._good is None:
                    raise
                self.set_weights(self._good)
                self.divergence = error
                _warn(error, iteration)
                break
            self._good = self.get_weights()
            self.status = _status(result)
            callbacks.on_epoch_end(iteration, self._logs(result))
            if self.stop_training:
                break
            self._update(result.hypergradients)
            if checkpoint:
                checkpoint.on_update_end()
        callbacks.on_train_end()
        return self.history

    def get_weights(self) -> list[np.ndarray]:
        """The hyperparameters' values as a list of arrays."""
        return [value.numpy() for value in read(self.hyperparameters)]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Assigns the hyperparameters from a list of arrays."""
        assign(self.hyperparameters, weights)

    def _logs(self, result: Result) -> dict[str, float]:
        logs = {
            "outer_value": float(result.outer_value),
            "hypergradient_norm": float(tf.linalg.global_norm(result.hypergradients)),
        }
        for name, variable in self._named:
            logs[name] = float(tf.convert_to_tensor(variable))
        return logs


def _status(result: Result) -> Status | list[Status | None] | None:
    """The `Status` of a result, or of each problem's."""
    if isinstance(result, MeanResult):
        return [one and one.status for one in result.results]
    return result.status


def _warn(error: NonFiniteError, iteration: int) -> None:
    warn_user(
        f"HyperOptimizer stops: hyper-iteration {iteration} diverged. The model and "
        f"the hyperparameters are those of hyper-iteration {iteration - 1}. {error}"
    )


def _check_problems(problem: Any) -> list[BilevelProblem]:
    problems = list(problem) if isinstance(problem, (list, tuple)) else [problem]
    if not problems:
        raise ValueError("`problem` must not be an empty list. Received: problem=[]")
    for other in problems:
        if not isinstance(other, BilevelProblem):
            raise ValueError(
                "`problem` must be a BilevelProblem or a list of them. Received: "
                f"{shown(other)}"
            )
        shared = problems[0].hyperparameters
        if len(other.hyperparameters) != len(shared) or any(
            mine is not theirs
            for mine, theirs in zip(shared, other.hyperparameters, strict=True)
        ):
            raise ValueError(
                "All problems must have the same hyperparameters (the same objects) "
                f"in the same order: {shown(shared)}. Received: "
                f"{shown(other.hyperparameters)}"
            )
    return problems
