"""The experiment of real_time.py: RTHO against fixed, grid and random search."""

import itertools
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far


class Values(NamedTuple):
    """Learning rate, momentum and L2 penalty."""

    learning_rate: float
    momentum: float
    l2: float


DEFAULTS = Values(0.01, 0.0, 0.0)  # Those of keras.optimizers.SGD.
GRID = [
    Values(*values)
    for values in itertools.product((0.03, 0.1, 0.3), (0.5, 0.9), (1e-5, 1e-4))
]


class Settings(NamedTuple):
    """What the flags of real_time.py set, by their names."""

    hidden_units: int
    batch_size: int
    epochs: int
    rtho_epochs: int
    update_every: int
    hyper_learning_rate: float
    start: Values


class Outcome(NamedTuple):
    """What one or more training runs yield.

    Attributes:
        values: The `Values` of the best epoch.
        accuracy: Percent of the test set.
        validation: Percent of the validation set.
        seconds: Time of training, without evaluations and tracing.
        runs: Number of training runs in it.
        history: Lists by epoch: seconds, validation accuracy, values.
    """

    values: Values
    accuracy: float
    validation: float
    seconds: float
    runs: int
    history: dict


class Trainer:
    """A network that trains again and again without being traced anew.

    Args:
        data: Named tuple of pairs (x, y): train, validation, test.
        settings: `Settings`.
        tune: Whether to tune the hyperparameters while training.
    """

    def __init__(self, data, settings, tune):
        self._data = data
        self._settings = settings
        # Tuned on scales on which equal steps mean equal things.
        self._log_rate = _hyperparameter("log_learning_rate", np.log([1e-6, 0.5]))
        self._logit_momentum = _hyperparameter("logit_momentum", [-8.0, _logit(0.9)])
        self._log_l2 = _hyperparameter("log_l2", np.log([1e-7, 1.0]))
        self._hypers = [self._log_rate, self._logit_momentum, self._log_l2]
        updates = (
            settings.rtho_epochs
            * (len(data.train[0]) // settings.batch_size)
            // settings.update_every
        )
        self._model = self._network()
        self._hyper_optimizer = keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                settings.hyper_learning_rate, max(1, updates), alpha=0.3
            ),
            beta_1=0.5,
            beta_2=0.99,
            clipnorm=1.0,
        )
        size = min(500, len(data.validation[0]))
        batches = far.Batches(data.validation, batch_size=size, seed=1)
        self._tuned = far.RealTimeModel(
            self._model,
            self._hypers if tune else [],
            dynamics=far.Momentum(
                lambda step: tf.exp(self._log_rate.value),
                lambda step: tf.sigmoid(self._logit_momentum.value),
            ),
            hyper_optimizer=self._hyper_optimizer,
            update_every=settings.update_every,
            hyper_data=batches if tune else None,
            outer_limit=100.0,
        )
        self._tuned.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self.fit(settings.start, epochs=1, seed=0)  # Traces.

    def fit(self, values, epochs, seed):
        """Trains from weights of their own for each seed.

        Returns:
            An `Outcome`, of the epoch that was best on the validation set.
        """
        keras.utils.set_random_seed(seed)
        self._model.set_weights(self._network().get_weights())
        self._set(values)
        self._tuned.restart()
        for variable in self._hyper_optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        clock = _Clock(self._values)
        best = keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=epochs, restore_best_weights=True
        )
        self._tuned.fit(
            _minibatches(self._data, self._settings, seed),
            shuffle=False,
            epochs=epochs,
            validation_data=self._data.validation,
            validation_batch_size=1000,
            callbacks=[clock, best],
            verbose=0,
        )
        _, accuracy = self._tuned.evaluate(*self._data.test, 1000, verbose=0)
        return Outcome(
            self._values(),
            100 * accuracy,
            max(clock.history["validation"]),
            clock.history["seconds"][-1],
            1,
            clock.history,
        )

    def _network(self):
        def penalty(kernel):
            return tf.exp(self._log_l2.value) * tf.reduce_sum(tf.square(kernel))

        hidden = [
            keras.layers.Dense(
                self._settings.hidden_units, "relu", kernel_regularizer=penalty
            )
            for _ in range(3)
        ]
        x, y = self._data.train
        return keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                *hidden,
                keras.layers.Dense(int(y.max()) + 1, kernel_regularizer=penalty),
            ]
        )

    def _set(self, values):
        self._log_rate.assign(np.log(values.learning_rate))
        self._logit_momentum.assign(_logit(values.momentum))
        with np.errstate(divide="ignore"):
            self._log_l2.assign(np.log(values.l2))  # −∞ for no penalty.

    def _values(self):
        return Values(
            float(np.exp(self._log_rate)),
            float(tf.sigmoid(self._logit_momentum.value)),
            float(np.exp(self._log_l2)),
        )


def _hyperparameter(name, bounds):
    return far.Hyperparameter(
        0.0, name=name, constraint=far.constraints.Interval(*bounds)
    )


def _logit(fraction):
    """The inverse of tf.sigmoid; −∞ for zero."""
    with np.errstate(divide="ignore"):
        return np.log(fraction) - np.log1p(-fraction)


def seconds_of_keras(data, settings):
    """Seconds of a training run by Keras' own `fit`, without its tracing."""
    x, y = data.train
    hidden = [
        keras.layers.Dense(settings.hidden_units, "relu", kernel_regularizer="l2")
        for _ in range(3)
    ]
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            *hidden,
            keras.layers.Dense(int(y.max()) + 1, kernel_regularizer="l2"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    examples = _minibatches(data, settings, seed=0)
    model.fit(examples, epochs=1, shuffle=False, verbose=0)
    start = time.perf_counter()
    model.fit(examples, epochs=settings.epochs, shuffle=False, verbose=0)
    return time.perf_counter() - start


def _minibatches(data, settings, seed):
    x, y = data.train
    examples = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return examples.batch(settings.batch_size, drop_remainder=True)


class _Clock(keras.callbacks.Callback):
    """Seconds of training without evaluations, and what each epoch reached."""

    def __init__(self, values):
        super().__init__()
        self._values = values
        self._seconds = 0.0
        self.history = {"seconds": [], "validation": [], "values": []}

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._seconds += time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        self.history["seconds"].append(self._seconds)
        self.history["validation"].append(100 * logs["val_accuracy"])
        self.history["values"].append(self._values())


def compare(settings, seed, plain, tuning, once):
    """All methods for one seed.

    Args:
        settings: `Settings`.
        seed: Integer.
        plain, tuning: `Trainer`s without and with tuning.
        once: Seconds of one training run by Keras' own `fit`.

    Returns:
        Mapping from the method to its `Outcome`.
    """
    rtho = tuning.fit(settings.start, settings.rtho_epochs, seed)
    grid = [plain.fit(values, settings.epochs, seed) for values in GRID]
    once = min(once, np.mean([outcome.seconds for outcome in grid]))
    random = np.random.RandomState(seed)
    count = max(1, round(rtho.seconds / once))
    drawn = [plain.fit(_draw(random), settings.epochs, seed) for _ in range(count)]
    return {
        "rtho": rtho,
        "grid": _best(grid),
        "random": _best(drawn),
        "defaults": plain.fit(DEFAULTS, settings.epochs, seed),
        "start": plain.fit(settings.start, settings.epochs, seed),
    }


def _draw(random):
    """Values from somewhat wider ranges than the grid spans."""
    return Values(
        float(10 ** random.uniform(-2.0, -0.5)),
        float(random.uniform(0.3, 0.9)),
        float(10 ** random.uniform(-5.0, -3.0)),
    )


def _best(outcomes):
    """The best on the validation set, with the time of all."""
    best = max(outcomes, key=lambda outcome: outcome.validation)
    return best._replace(
        seconds=sum(outcome.seconds for outcome in outcomes), runs=len(outcomes)
    )
