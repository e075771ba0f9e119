"""The outer loop: hypergradient descent on hyperparameters."""

import dataclasses
import warnings
from typing import NamedTuple

import keras
import tensorflow as tf

from far_ho_tf.callbacks import ProgressBar
from far_ho_tf.checks import check_count, check_limit, is_integer, require
from far_ho_tf.distribution import check_strategy, outside_scope, scope_of
from far_ho_tf.hypergradients import HyperGradient, NonFiniteError, ReverseHG
from far_ho_tf.hyperparameters import scalar_names
from far_ho_tf.outer_update import OuterUpdate
from far_ho_tf.problem import BilevelProblem
from far_ho_tf.tasks import Tasks
from far_ho_tf.variables import assign, read

_MODES = ("restart", "online", "warm_restart")


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
        optimizer: The Keras optimizer, whose learning rate callbacks may
            change; a list of them where there are groups.
        history: The `keras.callbacks.History` of the last `fit`.
        stop_training: Set by callbacks to end `fit`.
        divergence: The `NonFiniteError` that ended the last `fit`, or `None`.

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

    def __init__(self, problem, hypergradient=None, optimizer=None, strategy=None):
        self.problems = _check_problems(problem)
        self.hyperparameters = self.problems[0].hyperparameters
        self.hypergradient = hypergradient or ReverseHG()
        if not isinstance(self.hypergradient, HyperGradient):
            raise ValueError(
                "`hypergradient` must be a HyperGradient such as "
                f"`far.ReverseHG()`. Received: {hypergradient!r}"
            )
        self.strategy = check_strategy(strategy)
        self._tasks = Tasks(strategy)
        with scope_of(self.hyperparameters):
            update = OuterUpdate(optimizer, self.hyperparameters)
        single = len(update.optimizers) == 1
        self.optimizer = update.optimizers[0] if single else update.optimizers
        self._update = tf.function(update.apply, autograph=False)
        self.stop_training = False
        self.history = None
        self.divergence = None
        self._position = _beginning(self.problems)

    def run(self, num_steps, mode="restart", episodes=None):
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
            The `HyperGradientResult` at the hyperparameters before the update.

        Raises:
            ValueError, NonFiniteError: As `HyperGradient.compute`; the
                hyperparameters stay as they were.
        """
        result = self._evaluate(num_steps, mode, episodes)
        self._apply(result.hypergradients)
        return result

    def fit(
        self,
        hyper_iterations,
        num_steps,
        mode="restart",
        callbacks=None,
        verbose=1,
        outer_limit=None,
        episodes=None,
    ):
        """Runs many hyper-iterations.

        A hyper-iteration that diverges (NaN, infinity, or an outer value above
        `outer_limit`) ends it with a warning. What is kept then is the last
        good hyper-iteration: its hyperparameters, and in the model its state.

        Args:
            hyper_iterations: Positive integer.
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
                `EarlyStopping("outer_value", mode="min")`,
                `ReduceLROnPlateau`, `CSVLogger` and the like; those that save
                a model do not.
            verbose: 0 is silent, 1 (or "auto") a progress bar, 2 one line.
            outer_limit: Number; an outer value above it counts as divergence.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            NonFiniteError: If the first hyper-iteration diverges: there is
                nothing good to keep.
        """
        hyper_iterations = check_count("hyper_iterations", hyper_iterations)
        check_limit("outer_limit", outer_limit)
        if isinstance(callbacks, keras.callbacks.Callback):
            callbacks = [callbacks]
        callbacks = list(callbacks or [])
        if verbose:
            callbacks.append(ProgressBar(2 if verbose == 2 else 1))
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            model=self,
            epochs=hyper_iterations,
            verbose=verbose,
            steps=num_steps,
        )
        self.stop_training = False
        self.divergence = None
        good = None
        callbacks.on_train_begin()
        for iteration in range(hyper_iterations):
            callbacks.on_epoch_begin(iteration)
            try:
                result = self._evaluate(num_steps, mode, episodes, outer_limit)
            except NonFiniteError as error:
                if good is None:
                    raise
                self.set_weights(good)
                self.divergence = error
                _warn(error, iteration)
                break
            good = self.get_weights()
            callbacks.on_epoch_end(iteration, self._logs(result))
            if self.stop_training:
                break
            self._apply(result.hypergradients)
        callbacks.on_train_end()
        return self.history

    def _apply(self, gradients):
        outside_scope(self._update, gradients)

    def get_weights(self):
        """The hyperparameters' values as a list of arrays."""
        return [value.numpy() for value in read(self.hyperparameters)]

    def set_weights(self, weights):
        """Assigns the hyperparameters from a list of arrays."""
        assign(self.hyperparameters, weights)

    def _evaluate(self, num_steps, mode, episodes, outer_limit=None):
        """Trains and differentiates, without the outer update.

        Where that diverges, position and models are put back.
        """
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}. Received: mode={mode!r}")
        position = self._position
        count = len(self.problems)
        if mode == "restart":
            position = _beginning(self.problems, position.outer_step)
        elif mode == "warm_restart":
            position = position._replace(tangents=[None] * count)
        elif self.hypergradient.has_tangents and position.lacks_tangents():
            raise ValueError(
                "The last run did not keep its tangents, so that `mode='online'` "
                "cannot go on from it: in chunks (`chunk_size`), `mode='restart'` "
                f"drops them. Received: {self.hypergradient}"
            )
        try:
            results, result = self._compute(num_steps, mode, episodes, position)
            _check_limit(result.outer_value, outer_limit)
        except NonFiniteError:
            self._write_back()
            raise
        outer_step = position.outer_step + 1
        if episodes is not None:  # Each run begins anew.
            self._position = _beginning(self.problems, outer_step)
            return result
        self._position = _Position(
            [one and one.state for one in results],
            [one and one.tangents for one in results],
            position.first_step + num_steps,
            outer_step,
        )
        return result

    def _compute(self, num_steps, mode, episodes, position):
        """The results of the problems, `None` where on another worker; their mean."""

        def compute(index, strategy, episodes=None):
            return self.hypergradient.compute(
                self.problems[index],
                num_steps,
                position.states[index],
                position.first_step,
                position.outer_step,
                position.tangents[index],
                keep_tangents=None if mode == "restart" else True,
                episodes=episodes,
                strategy=strategy,
            )

        if len(self.problems) == 1 and episodes is None:
            result = compute(0, self.strategy)
            return [result], result
        self._tasks.check(self.problems)
        if episodes is None:
            return self._over_problems(compute, num_steps)
        require(
            len(self.problems) == 1 and mode == "restart",
            "`episodes` are for one problem, with mode='restart'.",
            problems=len(self.problems),
            mode=mode,
        )
        if is_integer(episodes):
            count = check_count("episodes", episodes)
            episodes = range(
                position.outer_step * count, (position.outer_step + 1) * count
            )
        return self._over_episodes(compute, num_steps, list(episodes))

    def _over_problems(self, compute, num_steps):
        count = len(self.problems)
        found, error = self._tasks.run(
            lambda places, strategy: [([i], compute(i, strategy)) for i in places],
            count,
        )
        mean = self._tasks.average(found, error, count, num_steps, self.hyperparameters)
        results = [None] * count
        for (place,), result in found:
            results[place] = result
            # In order, as several may share a model.
            self.problems[place].write_back(result.state)
        mean = dataclasses.replace(
            mean,
            choices=[one and one.choices for one in results],
            state=[one and one.state for one in results],
            status=[one and one.status for one in results],
            tangents=[one and one.tangents for one in results],
        )
        return results, mean

    def _over_episodes(self, compute, num_steps, episodes):
        found, error = self._tasks.run(
            lambda places, strategy: [
                (places, compute(0, strategy, [episodes[place] for place in places]))
            ],
            len(episodes),
        )
        mean = self._tasks.average(
            found, error, len(episodes), num_steps, self.hyperparameters
        )
        if not found:  # There are fewer episodes than workers.
            return [None], mean
        results = [result for _, result in found]
        last = results[-1]
        self.problems[0].write_back(last.state)
        choices = tf.nest.map_structure(
            lambda *rows: tf.concat(rows, axis=0), *(one.choices for one in results)
        )
        mean = dataclasses.replace(
            mean, choices=choices, state=last.state, status=last.status
        )
        return [mean], mean

    def _write_back(self):
        """Lets the models hold the states that the last runs arrived at."""
        for problem, state in zip(self.problems, self._position.states, strict=True):
            if state is not None:
                problem.write_back(state)

    def _logs(self, result):
        logs = {
            "outer_value": float(result.outer_value),
            "hypergradient_norm": float(tf.linalg.global_norm(result.hypergradients)),
        }
        for name, variable in scalar_names(self.hyperparameters, logs):
            logs[name] = float(tf.convert_to_tensor(variable))
        return logs


class _Position(NamedTuple):
    """Where the runs of the problems have arrived.

    Attributes:
        states: List of `State`s, `None` for Φ_0.
        tangents: List of tangents or `None`.
        first_step: Integer, the next inner step.
        outer_step: Integer, the next step of the outer data.
    """

    states: list
    tangents: list
    first_step: int
    outer_step: int

    def lacks_tangents(self):
        """Whether there are states without tangents."""
        return any(
            state is not None and tangents is None
            for state, tangents in zip(self.states, self.tangents, strict=True)
        )


def _beginning(problems, outer_step=0):
    nothing = [None] * len(problems)
    return _Position(nothing, nothing, 0, outer_step)


def _warn(error, iteration):
    warnings.warn(
        f"HyperOptimizer stops: hyper-iteration {iteration} diverged. The model and "
        f"the hyperparameters are those of hyper-iteration {iteration - 1}. {error}",
        stacklevel=3,
    )


def _check_limit(value, limit):
    if limit is not None and value > limit:
        raise NonFiniteError(
            f"The outer value, {float(value):g}, is above outer_limit={limit:g}."
        )


def _check_problems(problem):
    problems = list(problem) if isinstance(problem, (list, tuple)) else [problem]
    if not problems:
        raise ValueError("`problem` must not be an empty list. Received: problem=[]")
    for other in problems:
        if not isinstance(other, BilevelProblem):
            raise ValueError(
                "`problem` must be a BilevelProblem or a list of them. Received: "
                f"{other!r}"
            )
        shared = problems[0].hyperparameters
        if len(other.hyperparameters) != len(shared) or any(
            mine is not theirs
            for mine, theirs in zip(shared, other.hyperparameters, strict=True)
        ):
            raise ValueError(
                "All problems must have the same hyperparameters (the same objects) "
                f"in the same order: {shared}. Received: {other.hyperparameters}"
            )
    return problems
