"""A Keras model that tunes its hyperparameters while it trains."""

import itertools
import warnings

import keras
import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.data import Placeholder
from far_ho_tf.hyperparameters import Hyperparameter, scalar_names
from far_ho_tf.outer_update import OuterUpdate
from far_ho_tf.problem import BilevelProblem
from far_ho_tf.real_time.training import RealTimeTraining
from far_ho_tf.variables import check_variables, find, path_of


class RealTimeModel(keras.Model):
    """Trains a Keras model, and tunes hyperparameters in the same pass.

    `fit` trains the weights of `model` by `dynamics` on the training data.
    Tangents of the weights with respect to the hyperparameters are carried
    along (forward mode), and after every `update_every` steps they give the
    gradient of the outer objective, the loss on `hyper_data`, by which
    `hyper_optimizer` moves the hyperparameters. The path is that of
    `HyperOptimizer.fit(mode="online")` with `ForwardHG` on the same batches.

    Callbacks, metrics, `evaluate`, `predict` and `save_weights` (weights and
    hyperparameters) work as for any Keras model; `model` itself is trained too,
    and can be saved. The logs, and so progress bar, CSVLogger and TensorBoard,
    show `outer_value` and the scalar hyperparameters by name.

    Time per step grows with the number of elements of all hyperparameters, as
    does memory: 1 + m copies of weights and slots.

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
        hyper_loss: The outer objective: a Keras loss, or a callable(y_true,
            y_pred) whose mean is taken; by default the loss given to `compile`,
            without regularizers, in inference mode.
        outer_limit: Number; an outer value above it counts as divergence, as
            NaN and infinity do. Then `fit` stops with a warning, and weights and
            hyperparameters are those of the last good update.
        name: String.

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
        model,
        hyperparameters,
        dynamics,
        hyper_optimizer=None,
        update_every=10,
        hyper_data=None,
        hyper_loss=None,
        outer_limit=None,
        name=None,
    ):
        super().__init__(name=name)
        require(
            isinstance(model, keras.Model) and model.built,
            "`model` must be a built keras.Model (give it an `Input`, or call it on "
            "data first).",
            model=model,
        )
        if hyperparameters:
            hyperparameters = check_variables("hyperparameters", hyperparameters)
        for variable in hyperparameters:
            require(
                isinstance(variable, keras.Variable),
                "`hyperparameters` must be Hyperparameters (or other Keras variables), "
                "which are saved with the model.",
                hyperparameter=variable,
            )
        require(
            not hyperparameters or hyper_data is not None,
            "`hyper_data` must be the data that hyperparameters are judged on, such "
            "as (x_hyper, y_hyper): neither the training data nor the data of "
            "the final test. `validation_data` of `fit` is not used for it.",
            hyper_data=hyper_data,
        )
        self.model = model
        self.hyperparameters = list(hyperparameters)
        self.dynamics = dynamics
        self.update_every = check_count("update_every", update_every)
        self.outer_limit = outer_limit
        self._hyper_loss = None if hyper_loss is None else keras.losses.get(hyper_loss)
        # In a function, so that Keras does not look into them.
        self._hyper_data = lambda: hyper_data
        update = (
            OuterUpdate(hyper_optimizer, hyperparameters) if hyperparameters else None
        )
        self._outer_update = lambda: update
        self._training = None
        self._predictions = None
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    @property
    def output_names(self):
        """Of the model, for losses and metrics that are given by output."""
        return getattr(self.model, "output_names", None)

    def compile(
        self,
        optimizer=None,
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
    ):
        """As `keras.Model.compile`, but for the optimizer: see `dynamics`.

        Args:
            optimizer: Must be `None`.
            loss: As Keras'. What it reads of the hyperparameters is tuned too.
            loss_weights: As Keras'; Hyperparameters may be among them.
            metrics, weighted_metrics, run_eagerly, steps_per_execution: As
                Keras'.
            jit_compile: See `HyperGradient`: XLA for the steps, or not.

        Raises:
            ValueError: If a hyperparameter would be judged by a loss that it
                weighs itself.
        """
        require(
            optimizer is None,
            "`compile` takes no optimizer: the `dynamics` of the RealTimeModel "
            "train the weights, and its `hyper_optimizer` the hyperparameters.",
            optimizer=optimizer,
        )
        for weight in tf.nest.flatten(loss_weights):
            require(
                find(weight, self.hyperparameters) is None
                or self._hyper_loss is not None,
                "`loss_weights` holds a hyperparameter, and the outer objective, the "
                "same loss, would drive it to zero. Give RealTimeModel a `hyper_loss` "
                "without it.",
                loss_weights=loss_weights,
            )
        require(
            jit_compile in (True, False, "auto"),
            "`jit_compile` must be True, False or 'auto'.",
            jit_compile=jit_compile,
        )
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
        self._compiled_by = jit_compile
        self._training = None

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`; stops where it diverges."""
        guard = _StopOnDivergence()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(guard)
        else:
            callbacks = [*tf.nest.flatten(callbacks or []), guard]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def restart(self):
        """Forgets slots, tangents and counters, for a new training run.

        Weights and hyperparameters are left as they are: assign them first.
        A second `fit` without it goes on from where the first ended.
        """
        if self._training is not None:
            self._training.restart()

    def make_train_function(self, force=False):
        """As Keras', for a function that first makes what the steps need.

        It is made from a batch's shapes, and outside of Keras' own function:
        within it, a `tf.init_scope` would stop all gradient tapes.
        """
        made = self.train_function
        super().make_train_function(force)
        if self.train_function is made:
            return
        train = self.train_function

        def train_function(iterator):
            if self._training is None:
                batch = getattr(iterator, "element_spec", None)
                if batch is None:  # A batch of `train_on_batch`.
                    batch = next(iterator)
                    iterator = itertools.chain([batch], iterator)
                self._training = self._make_training(batch)
            return train(iterator)

        self.train_function = train_function

    def train_step(self, data):
        """One step of training, and of tuning where it is due."""
        loss, predictions = self._training.step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._loss_tracker.update_state(
            loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0]
        )
        logs = dict(self.compute_metrics(x, y, predictions, sample_weight))
        if self.hyperparameters:
            logs["outer_value"] = tf.identity(self._training.outer_value)
        for name, variable in scalar_names(self.hyperparameters, logs):
            logs[name] = tf.identity(variable.value)
        return logs

    def _make_training(self, batch):
        problem = BilevelProblem(
            self._inner_objective,
            self._outer_objective,
            self.model,
            self.dynamics,
            # A problem must have hyperparameters; this one is left alone.
            self.hyperparameters
            or [Hyperparameter(0.0, dtype=self.model.variable_dtype, name="unused")],
            inner_data=Placeholder(batch),
            outer_data=self._hyper_data(),
        )
        training = RealTimeTraining(
            problem,
            lambda: self._predictions,
            self._hyper_data(),
            self._outer_update(),
            self.update_every,
            self.outer_limit,
            self._compiled_by,
        )
        if self.hyperparameters and training.read_directly and not self._hyper_loss:
            warnings.warn(
                f"The loss on `hyper_data` reads {training.read_directly} directly. A "
                "hyperparameter that weighs the loss itself would go to zero: give "
                "RealTimeModel a `hyper_loss` without it.",
                stacklevel=2,
            )
        return training

    def _inner_objective(self, batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        self._predictions = self(x, training=True)
        return self.compute_loss(
            x=x, y=y, y_pred=self._predictions, sample_weight=sample_weight
        )

    def _outer_objective(self, batch=None):
        if batch is None:  # No data, as there are no hyperparameters.
            return tf.zeros([], self.model.variable_dtype)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        predictions = self(x, training=False)
        if self._hyper_loss is None:
            return self._compile_loss(y, predictions, sample_weight)
        if isinstance(self._hyper_loss, keras.losses.Loss):
            return self._hyper_loss(y, predictions, sample_weight)
        return tf.reduce_mean(self._hyper_loss(y, predictions))


class _StopOnDivergence(keras.callbacks.Callback):
    """Ends `fit` where an update found that the training diverged."""

    def on_train_batch_end(self, batch, logs=None):
        training = self.model._training
        if training is None or not training.diverged:
            return
        value = float(training.outer_value)
        training.recover()
        self.model.stop_training = True
        values = {path_of(v): v.numpy().tolist() for v in self.model.hyperparameters}
        warnings.warn(
            f"RealTimeModel stops: training diverged before batch {batch + 1} (outer "
            f"value {value:g}, outer_limit={self.model.outer_limit}). Weights and "
            f"hyperparameters are those of the last good update: {values}",
            stacklevel=2,
        )
