"""The experiment: RTHO against fixed, grid and random search."""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images
from examples.real_time.speech import Frames


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
    """What the flags of run.py set, by their names."""

    num_seeds: int
    hidden_units: int
    batch_size: int
    epochs: int
    rtho_epochs: int
    update_every: int
    hyper_learning_rate: float
    start_learning_rate: float
    start_momentum: float
    start_l2: float

    @property
    def start(self) -> Values:
        """The poor start."""
        return Values(self.start_learning_rate, self.start_momentum, self.start_l2)


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
    history: dict[str, list]


class Comparison(NamedTuple):
    """What the experiment comes to.

    Attributes:
        seeds: For each seed a dict from the method to its `Outcome`.
        seconds_of_keras: Of one training run by Keras' own `fit`.
    """

    seeds: list[dict[str, Outcome]]
    seconds_of_keras: float


class Trainer:
    """A network that trains again and again without being traced anew.

    Args:
        data: `Images` or `Frames`.
        settings: `Settings`.
        tune: Whether to tune the hyperparameters while training.
    """

    def __init__(self, data: Images | Frames, settings: Settings, tune: bool) -> None:
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

    def fit(self, values: Values, epochs: int, seed: int) -> Outcome:
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

    def _network(self) -> keras.Model:
        def penalty(kernel: tf.Tensor) -> tf.Tensor:
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

    def _set(self, values: Values) -> None:
        self._log_rate.assign(np.log(values.learning_rate))
        self._logit_momentum.assign(_logit(values.momentum))
        with np.errstate(divide="ignore"):
            self._log_l2.assign(np.log(values.l2))  # −∞ for no penalty.

    def _values(self) -> Values:
        return Values(
            float(np.exp(self._log_rate)),
            float(tf.sigmoid(self._logit_momentum.value)),
            float(np.exp(self._log_l2)),
        )


def _hyperparameter(name: str, bounds: np.ndarray | list[float]) -> far.Hyperparameter:
    return far.Hyperparameter(
        0.0, name=name, constraint=far.constraints.Interval(*bounds)
    )


def _logit(fraction: float) -> float:
    """The inverse of tf.sigmoid; −∞ for zero."""
    with np.errstate(divide="ignore"):
        return np.log(fraction) - np.log1p(-fraction)


def seconds_of_keras(data: Images | Frames, settings: Settings) -> float:
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


def _minibatches(
    data: Images | Frames, settings: Settings, seed: int
) -> tf.data.Dataset:
    x, y = data.train
    examples = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return examples.batch(settings.batch_size, drop_remainder=True)


class _Clock(keras.callbacks.Callback):
    """Seconds of training without evaluations, and what each epoch reached."""

    def __init__(self, values: Callable[[], Values]) -> None:
        super().__init__()
        self._values = values
        self._seconds = 0.0
        self.history: dict[str, list] = {"seconds": [], "validation": [], "values": []}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._seconds += time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.history["seconds"].append(self._seconds)
        self.history["validation"].append(100 * logs["val_accuracy"])
        self.history["values"].append(self._values())


def compare(data: Images | Frames, settings: Settings, verbose: int = 1) -> Comparison:
    """All methods for each seed; each is told of unless `verbose` is zero."""
    plain, tuning = (Trainer(data, settings, tune) for tune in (False, True))
    once = seconds_of_keras(data, settings)
    outcomes = []
    for seed in range(settings.num_seeds):
        found = compare_on_seed(settings, seed, plain, tuning, once)
        outcomes.append(found)
        if verbose:
            print(
                f"Seed {seed}: RTHO {found['rtho'].accuracy:.2f} % in "
                f"{found['rtho'].seconds:.1f} s; grid {found['grid'].accuracy:.2f} % "
                f"in {found['grid'].seconds:.1f} s ({found['grid'].runs} runs)",
                flush=True,
            )
    return Comparison(outcomes, once)


def compare_on_seed(
    settings: Settings, seed: int, plain: Trainer, tuning: Trainer, once: float
) -> dict[str, Outcome]:
    """All methods for one seed.

    Args:
        settings: `Settings`.
        seed: Integer.
        plain, tuning: `Trainer`s without and with tuning.
        once: Seconds of one training run by Keras' own `fit`.

    Returns:
        Dict from the method to its `Outcome`.
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


def _draw(random: np.random.RandomState) -> Values:
    """Values from somewhat wider ranges than the grid spans."""
    return Values(
        float(10 ** random.uniform(-2.0, -0.5)),
        float(random.uniform(0.3, 0.9)),
        float(10 ** random.uniform(-5.0, -3.0)),
    )


def _best(outcomes: list[Outcome]) -> Outcome:
    """The best on the validation set, with the time of all."""
    best = max(outcomes, key=lambda outcome: outcome.validation)
    return best._replace(
        seconds=sum(outcome.seconds for outcome in outcomes), runs=len(outcomes)
    )
