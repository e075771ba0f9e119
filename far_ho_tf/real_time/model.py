"""A Keras model that tunes its hyperparameters while it trains."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import OuterOptimizer, Structure
from far_ho_tf.checks import check_count, check_limit, warn_user
from far_ho_tf.data import Placeholder, as_source
from far_ho_tf.data.array_sources import Data
from far_ho_tf.dynamics import Dynamics, as_dynamics
from far_ho_tf.hypergradients import NonFiniteError
from far_ho_tf.hypergradients.result import Status
from far_ho_tf.hyperparameters.hyperparameter import scalar_names
from far_ho_tf.notices import listener_of_fit, told_to
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.real_time.checks import (
    REFUSED_CALLBACKS,
    check_compiled,
    checked,
    divergence,
    given_to_fit,
    not_finite,
    refuse_strategy,
    updates_of,
    warn_of_no_update,
    warn_of_reading,
)
from far_ho_tf.real_time.objectives import Loss, LossWeights, Objectives
from far_ho_tf.real_time.steps import RealTimeTraining
from far_ho_tf.tuning.callbacks import prepare_callbacks
from far_ho_tf.tuning.outer_update import OuterUpdate


class RealTimeModel(keras.Model):
    """Trains a Keras model, and tunes hyperparameters in the same pass.

    `fit` trains the weights of `model` by `dynamics` on the training data.
    Tangents of the weights with respect to the hyperparameters are carried
    along (forward mode), and after every `update_every` steps they give the
    gradient of the outer objective, the loss on `hyper_data`, by which
    `hyper_optimizer` moves the hyperparameters. The path is that of
    `HyperOptimizer.fit(mode="online")` with `ForwardHG` on the same batches.

    Metrics, `evaluate`, `predict`, `save_weights` (weights and hyperparameters)
    and callbacks work as for any Keras model, but for those that need an
    optimizer (`ReduceLROnPlateau`, `LearningRateScheduler`) or save more than
    weights, which are refused: save `model`, which is trained too. The logs, and
    so progress bar, CSVLogger and TensorBoard, show `outer_value` and the scalar
    hyperparameters by name.

    A second `fit` or `compile` goes on from where the first ended. `load_weights` and
    `set_weights` begin anew, as `restart` does: slots and tangents, which are not
    saved, belong to other weights. Time per step grows with the number m of elements of
    all hyperparameters, as does memory: 1 + m copies of weights and slots.

    Args:
        model: A built `keras.Model`.
        hyperparameters: List of `Hyperparameter`s that the dynamics, the loss
            or a regularizer reads. An empty list trains only.
        dynamics: A `Dynamics`: what an optimizer is in `compile` otherwise.
        hyper_optimizer: As `HyperOptimizer`'s `optimizer`: a Keras optimizer,
            or pairs (hyperparameters, optimizer). Clipping (`clipnorm`,
            `clipvalue`) and constraints are honoured.
        update_every: Integer, steps between updates of the hyperparameters.
        hyper_data: The data that hyperparameters are judged on, apart from the
            training data and from whatever tests the result. `(x, y)` or
            `(x, y, sample_weight)` as one full batch, or `far.Batches`, a
            `tf.data.Dataset` or a callable(step) of such tuples, one for each
            update. Never taken from `validation_data` in silence.
        hyper_loss: The outer objective, in inference mode: what `loss` in
            `compile` may be, such as a Keras loss, its name, a callable(y_true,
            y_pred), or a list or dict of them by output (`None`: not judged).
            By default loss and loss weights of `compile`. Regularizers are left
            out in any case.
        outer_limit: Number; an outer value above it counts as divergence, as
            NaN and infinity do. Then training stops with a warning, and weights
            and hyperparameters are those of the last good update.
        name: String.

    Attributes:
        model, hyperparameters, dynamics, update_every: As given.
        divergence: The `NonFiniteError` that ended the last `fit`, or `None`.

    Raises:
        ValueError: If an argument is malformed; the message names it.

    Example:

    >>> import far_ho_tf as far, keras
    >>> import numpy as np
    >>> x = np.random.RandomState(0).randn(64, 3).astype("float32")
    >>> y = x.sum(axis=1, keepdims=True)
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> rate = far.Hyperparameter(0.01, name="rate", constraint="non_neg")
    >>> tuned = far.RealTimeModel(
    ...     model,
    ...     hyperparameters=[rate],
    ...     dynamics=far.Momentum(rate, 0.5),
    ...     hyper_optimizer=keras.optimizers.Adam(0.01),
    ...     update_every=2,
    ...     hyper_data=(x[:32], y[:32]),
    ... )
    >>> tuned.compile(loss="mse", metrics=["mae"])
    >>> history = tuned.fit(x[32:], y[32:], batch_size=8, epochs=10, verbose=0)
    >>> sorted(history.history)
    ['loss', 'mae', 'outer_value', 'rate']

    Source: Franceschi et al. 2017, section 3.3 (RTHO).
    """

    def __init__(
        self,
        model: keras.Model,
        hyperparameters: Sequence[keras.Variable],
        dynamics: Dynamics | keras.optimizers.Optimizer,
        hyper_optimizer: OuterOptimizer = None,
        update_every: int = 10,
        hyper_data: Data = None,
        hyper_loss: Loss = None,
        outer_limit: float | None = None,
        name: str | None = None,
    ) -> None:
        refuse_strategy()
        super().__init__(name=name)
        hyperparameters = checked(model, hyperparameters, hyper_data)
        self.model = model
        self.hyperparameters = hyperparameters
        self.dynamics = as_dynamics(dynamics)
        self.update_every = check_count("update_every", update_every)
        self.divergence: NonFiniteError | None = None
        self._outer_limit = check_limit("outer_limit", outer_limit)
        self._hyper_data = as_source(hyper_data, "hyper_data", cycle=True)
        self._outer_update = (
            OuterUpdate(hyper_optimizer, hyperparameters) if hyperparameters else None
        )
        self._objectives = Objectives(self, hyper_loss)
        self._training: RealTimeTraining = None  # pyright: ignore[reportAttributeAccessIssue]
        self._is_compiled_anew = False
        # Of the last `fit`: updates before it, and which of its data are not finite.
        self._updates_before, self._search = 0, list
        self.built = True

    def call(self, inputs: Structure, training: bool | None = None) -> Structure:
        return self.model(inputs, training=training)

    @property
    def output_names(self) -> list[str] | None:
        """Of the model, for losses and metrics that are given by output."""
        return getattr(self.model, "output_names", None)

    def compile(
        self,
        optimizer: None = None,
        loss: Loss = None,
        loss_weights: LossWeights = None,
        metrics: Structure = None,
        weighted_metrics: Structure = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
    ) -> None:
        """As `keras.Model.compile`, but for the optimizer: see `dynamics`.

        Args:
            optimizer: Must be `None`.
            loss: As Keras'. What it reads of the hyperparameters is tuned too.
            loss_weights: As Keras'; Hyperparameters may be among them.
            metrics, weighted_metrics, steps_per_execution: As Keras'.
            run_eagerly: As Keras'; the steps themselves remain compiled.
            jit_compile: See `HyperGradient`: XLA for the steps, or not.

        Raises:
            ValueError: If a hyperparameter would be judged by a loss that it
                weighs itself.
        """
        is_judged_apart = self._objectives.hyper_loss is not None
        judged = [] if is_judged_apart else self.hyperparameters
        check_compiled(optimizer, loss_weights, judged, jit_compile)
        super().compile(
            optimizer=None,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,  # Our own steps are compiled within Keras' function.
        )
        self._objectives.compile(loss, loss_weights)
        self._compiled_by = jit_compile
        self._is_compiled_anew = True

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; stops where training diverges.

        See `divergence`. The learning rates that led there are not mended by it: bound
        them (`constraint`) or clip their hypergradients before going on. Above Keras'
        progress bar stands what the first step waits for: "tracing …", "compiling …".
        """
        refuse_strategy()
        self.divergence = None
        if self._training is not None:
            self._training.keep_as_good()
        given = given_to_fit(self, *args, **kwargs)
        prepare_callbacks(given.get("callbacks"), REFUSED_CALLBACKS)
        self._updates_before = updates_of(self._outer_update)
        self._search = functools.partial(not_finite, given)
        with told_to(listener_of_fit(given)):
            history = super().fit(*args, **kwargs)
        if self._training is None:  # Of no epochs.
            return history
        self._recover(finished=True)
        self._search = list  # The data may be large.
        if self._outer_update and not self.divergence:
            warn_of_no_update(self._outer_update, self.update_every)
        return history

    def restart(self) -> None:
        """Forgets slots, tangents and counters, for a new training run.

        Weights and hyperparameters are left as they are: assign them first. The outer
        optimizer keeps its state, and a `tf.data.Dataset` as `hyper_data` goes on.
        """
        if self._training is not None:
            self._training.restart()

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.load_weights`; then it begins anew (`restart`)."""
        super().load_weights(*args, **kwargs)
        self.restart()

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """As `keras.Model.set_weights`; then it begins anew (`restart`)."""
        super().set_weights(weights)
        self.restart()

    def get_config(self) -> NoReturn:
        """A RealTimeModel cannot be made again from a configuration."""
        raise NotImplementedError(
            "A RealTimeModel cannot be saved or copied whole. Save the weights and "
            "hyperparameters (`save_weights`, `ModelCheckpoint` with "
            "save_weights_only=True), or the trained model (`tuned.model.save(path)`)."
        )

    @property
    def status(self) -> Status | None:
        """The `Status` of the steps, which names the compiler; `None` before."""
        return None if self._training is None else self._training.status

    def make_train_function(self, force: bool = False) -> None:
        """As Keras', for a function that first makes what the steps need."""
        if self.train_function is not None and not force:
            return

        def train_function(iterator: Iterator[Structure]) -> Structure:
            iterator = self._prepared(iterator)
            self._training.check_next()
            logs = self._train(iterator)
            self._recover()
            return logs

        self.train_function = train_function

    def train_step(self, data: Structure) -> dict[str, tf.Tensor]:
        """One step of training, and of tuning where it is due."""
        loss, predictions = self._training.step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._loss_tracker.update_state(
            loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0]
        )
        logs = dict(self.compute_metrics(x, y, predictions, sample_weight))
        if self.hyperparameters:
            logs["outer_value"] = tf.identity(self._training.carried.outer_value)
        for name, variable in scalar_names(self.hyperparameters, logs):
            logs[name] = tf.identity(variable.value)
        return logs

    def _prepared(self, iterator: Iterator[Structure]) -> Iterator[Structure]:
        """Makes the training that fits the batches of an iterator.

        It is made outside of Keras' own function: within that, a `tf.init_scope`
        would stop all gradient tapes.
        """
        batch = getattr(iterator, "element_spec", None)
        if batch is None:  # A batch of `train_on_batch`.
            batch = next(iterator)
            iterator = itertools.chain([batch], iterator)
        previous = self._training
        batches = previous.batches.widened(batch) if previous else Placeholder(batch)
        if (
            previous is None
            or self._is_compiled_anew
            or batches.specs != previous.batches.specs
        ):
            self._training = self._make_training(batches, previous)
            self._is_compiled_anew = False
            wrapper = self.train_function
            super().make_train_function(force=True)
            self._train, self.train_function = self.train_function, wrapper
        return iterator

    def _make_training(
        self, batches: Placeholder, previous: RealTimeTraining | None
    ) -> RealTimeTraining:
        problem = BilevelProblem(
            self._objectives.inner,
            self._objectives.outer,
            self.model,
            self.dynamics,
            self.hyperparameters or [self._objectives.idle],
            inner_data=batches,
            outer_data=self._hyper_data if self.hyperparameters else None,
        ).pure
        with problem.explained():
            training = RealTimeTraining(
                problem,
                self._objectives,
                self._outer_update,
                self.update_every,
                self._outer_limit,
                self._compiled_by,
                previous,
            )
        if self._objectives.hyper_loss is None:
            warn_of_reading(training.read_directly)
        return training

    def _recover(self, finished: bool = False) -> None:
        """Stops with the last good state where training diverged."""
        training = self._training
        if not training.has_diverged(finished):
            return
        step, value = int(training.carried.step), float(training.carried.outer_value)
        training.recover()
        self.stop_training = True
        limit = self._outer_limit
        updates = updates_of(self._outer_update) - self._updates_before
        self.divergence = divergence(
            step, value, limit, self.hyperparameters, updates, self._search()
        )
        warn_user(str(self.divergence))
