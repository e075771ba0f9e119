"""The outer loop: hypergradient descent on hyperparameters."""

import keras
import tensorflow as tf

from far_ho_tf.callbacks import ProgressBar
from far_ho_tf.checks import check_count
from far_ho_tf.hypergradients import HyperGradient, ReverseHG
from far_ho_tf.hypergradients.base import average
from far_ho_tf.problem import BilevelProblem
from far_ho_tf.variables import assign, path_of, read

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
            constraints of the hyperparameters after each update.
        strategy: Must be `None`: this version runs on one device.

    Attributes:
        problems: List of the problems.
        hyperparameters: List of the variables that they share.
        hypergradient: The `HyperGradient`.
        optimizer: The Keras optimizer; callbacks may change its learning rate.
        history: The `keras.callbacks.History` of the last `fit`.
        stop_training: Set by callbacks to end `fit`.

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
        if strategy is not None:
            raise ValueError(
                "`strategy` must be None: this version of far_ho_tf runs on one "
                f"device. Received: strategy={strategy!r}"
            )
        self.optimizer = keras.optimizers.get(
            keras.optimizers.Adam(0.01) if optimizer is None else optimizer
        )
        if not self.optimizer.built:
            self.optimizer.build(self.hyperparameters)
        self.stop_training = False
        self.history = None
        self._apply = tf.function(
            lambda gradients: self.optimizer.apply(gradients, self.hyperparameters),
            autograph=False,
        )
        self._states = [None] * len(self.problems)
        self._first_step = 0
        self._outer_step = 0

    def run(self, num_steps, mode="restart"):
        """One hyper-iteration: train, hypergradient, outer update.

        Args:
            num_steps: Positive integer, inner steps T.
            mode: "restart" trains from Φ_0; "online" and "warm_restart" go on
                from where the last run ended, so that the hypergradient is
                that of the last `num_steps` steps only (in reverse mode the
                two are the same).

        Returns:
            The `HyperGradientResult` at the hyperparameters before the update.

        Raises:
            ValueError, NonFiniteError: As `HyperGradient.compute`; the
                hyperparameters stay as they were.
        """
        result = self._evaluate(num_steps, mode)
        self._apply(result.hypergradients)
        return result

    def fit(
        self, hyper_iterations, num_steps, mode="restart", callbacks=None, verbose=1
    ):
        """Runs many hyper-iterations.

        Args:
            hyper_iterations: Positive integer.
            num_steps, mode: See `run`.
            callbacks: List of Keras callbacks. `on_epoch_begin` and
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

        Returns:
            A `keras.callbacks.History`.
        """
        hyper_iterations = check_count("hyper_iterations", hyper_iterations)
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
        callbacks.on_train_begin()
        for iteration in range(hyper_iterations):
            callbacks.on_epoch_begin(iteration)
            result = self._evaluate(num_steps, mode)
            callbacks.on_epoch_end(iteration, self._logs(result))
            if self.stop_training:
                break
            self._apply(result.hypergradients)
        callbacks.on_train_end()
        return self.history

    def get_weights(self):
        """The hyperparameters' values as a list of arrays."""
        return [value.numpy() for value in read(self.hyperparameters)]

    def set_weights(self, weights):
        """Assigns the hyperparameters from a list of arrays."""
        assign(self.hyperparameters, weights)

    def _evaluate(self, num_steps, mode):
        """Trains and differentiates, without the outer update."""
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}. Received: mode={mode!r}")
        if mode == "restart":
            self._states = [None] * len(self.problems)
            self._first_step = 0
        results = [
            self.hypergradient.compute(
                problem, num_steps, state, self._first_step, self._outer_step
            )
            for problem, state in zip(self.problems, self._states, strict=True)
        ]
        self._states = [result.state for result in results]
        self._first_step += num_steps
        self._outer_step += 1
        return average(results)

    def _logs(self, result):
        logs = {
            "outer_value": float(result.outer_value),
            "hypergradient_norm": float(tf.linalg.global_norm(result.hypergradients)),
        }
        for variable in self.hyperparameters:
            if not variable.shape.rank:
                name, count = path_of(variable), 0
                while name in logs:  # Names need not be unique.
                    count += 1
                    name = f"{path_of(variable)}_{count}"
                logs[name] = float(tf.convert_to_tensor(variable))
        return logs


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
