"""The experiment: a representation learned over episodes.

Franceschi et al. 2018: the weights of a network are hyperparameters, and
a linear classifier on top of it is what the inner problem trains.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.hyper_representation.characters import Classes
from examples.hyper_representation.episodes import Episode, Episodes

# Of the linear classifier, for what does not learn: from 0.01 to 100.
GRID = tuple(float(rate) for rate in 10.0 ** np.arange(-2, 2.1, 0.5))
CURVE_EPISODES = 200
TOGETHER = 50  # Episodes that are evaluated at the same time.


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    seed: int
    ways: int
    shots: int
    queries: int
    hyper_iterations: int
    num_steps: int
    episodes: int
    learning_rate: float
    outer_rate: float
    filters: int
    features: int
    test_episodes: int
    test_every: int
    replicas: int


class Accuracy(NamedTuple):
    """Accuracy on the queries of held-out classes.

    Attributes:
        mean, standard_error: Over episodes, in percent.
        learning_rate: Of the linear classifier.
    """

    mean: float
    standard_error: float
    learning_rate: float


def make_strategy(replicas: int) -> tf.distribute.Strategy | None:
    """A strategy of so many devices, `None` for one; before TensorFlow is used."""
    if replicas == 1:
        return None
    kind = "GPU"
    if len(tf.config.list_physical_devices(kind)) < replicas:
        kind = "CPU"
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices(kind)[0],
            [tf.config.LogicalDeviceConfiguration()] * replicas,
        )
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(replicas)])


def make_network(settings: Settings) -> keras.Model:
    """Three convolutions and a dense layer: 784 pixels to a vector of features."""
    layers = [keras.Input((28 * 28,)), keras.layers.Reshape((28, 28, 1))]
    for filters in (settings.filters, 2 * settings.filters, 2 * settings.filters):
        layers.append(
            keras.layers.Conv2D(
                filters, 3, strides=2, padding="same", activation="relu"
            )
        )
    layers += [keras.layers.Flatten(), keras.layers.Dense(settings.features)]
    return keras.Sequential(layers)


def make_problem(
    network: keras.Model, episodes: Episodes, settings: Settings
) -> far.BilevelProblem:
    """The bilevel problem: a linear classifier inside, the network outside.

    Args:
        network: What `make_network` returned.
        episodes: `Episodes`.
        settings: `Settings`.
    """
    head = keras.layers.Dense(settings.ways)
    head.build((None, settings.features))

    def loss(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        return tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, head(network(images)), from_logits=True
            )
        )

    return far.BilevelProblem(
        inner_objective=loss,
        outer_objective=loss,
        variables=head,
        dynamics=far.GradientDescent(settings.learning_rate),
        hyperparameters=network.trainable_variables,
        inner_data=lambda step, episode: episodes(episode).support,
        outer_data=lambda step, episode: episodes(episode).query,
        initial_values=[
            (weight, tf.zeros(weight.shape, weight.dtype)) for weight in head.weights
        ],
    )


class Evaluation:
    """Trains linear classifiers on a fixed representation, without far_ho_tf.

    Args:
        represent: Callable(images) -> features, such as a network.
        episodes: `Episodes`.
        settings: `Settings`.
    """

    def __init__(
        self,
        represent: Callable[[tf.Tensor], tf.Tensor],
        episodes: Episodes,
        settings: Settings,
    ) -> None:
        self._represent, self._episodes = represent, episodes
        self._settings = settings
        # Traced once, for any number of episodes and rates.
        self._right_of = tf.function(
            self._right, autograph=False
        ).get_concrete_function(
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], keras.config.floatx()),
        )

    def accuracy(self, rate: float) -> Accuracy:
        """That of the classifiers that learn at this rate."""
        (shares,) = 100 * self.shares(self._settings.test_episodes, [rate])
        error = shares.std(ddof=1) / math.sqrt(len(shares))
        return Accuracy(float(shares.mean()), float(error), rate)

    def shares(self, count: int, rates: Sequence[float]) -> np.ndarray:
        """The share of right queries of the first episodes: an array [rates, count]."""
        rates = tf.constant(rates, keras.config.floatx())
        blocks = [
            self.right(range(first, min(first + TOGETHER, count)), rates)
            for first in range(0, count, TOGETHER)
        ]
        return np.concatenate(blocks, axis=1).mean(axis=-1)

    def right(self, numbers: Iterable[int], rates: tf.Tensor) -> np.ndarray:
        """Whether each query is classified rightly: [rates, episodes, queries]."""
        return self._right_of(tf.constant(list(numbers)), rates).numpy()

    def _right(self, numbers: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
        """Several episodes and rates at once; the gradient is written out."""
        dtype = rates.dtype
        pairs = ((dtype, tf.int32), (dtype, tf.int32))
        (images, labels), (queries, truth) = tf.map_fn(
            lambda number: tuple(self._episodes(number)),
            numbers,
            fn_output_signature=pairs,
        )
        x, new = self._features(images), self._features(queries)
        targets = tf.one_hot(labels, self._settings.ways, dtype=dtype)
        rates = rates[:, None, None, None]
        rows = [tf.size(rates), tf.size(numbers)]
        kernel = tf.zeros([*rows, x.shape[-1], self._settings.ways], dtype)
        bias = tf.zeros([*rows, 1, self._settings.ways], dtype)
        for _ in range(self._settings.num_steps):
            error = (tf.nn.softmax(x @ kernel + bias) - targets) / labels.shape[1]
            kernel -= rates * tf.matmul(x, error, transpose_a=True)
            bias -= rates * tf.reduce_sum(error, axis=-2, keepdims=True)
        guess = tf.argmax(new @ kernel + bias, axis=-1, output_type=tf.int32)
        return tf.cast(guess == truth, dtype)

    def _features(self, images: tf.Tensor) -> tf.Tensor:
        features = self._represent(tf.reshape(images, [-1, images.shape[-1]]))
        rows = [-1, images.shape[1], features.shape[-1]]
        return tf.reshape(features, rows)


def compare(classes: Classes, settings: Settings, verbose: int = 1) -> dict[str, Any]:
    """The learned representation beside the initial one and raw pixels.

    Args:
        classes: `Classes`.
        settings: `Settings`.
        verbose: See `far.HyperOptimizer.fit`.

    Returns:
        A dict: "pixels", "initial" and "learned", `Accuracy`s on held-out classes;
        what `learn` returned; "shown", what `show` returned.
    """
    strategy = make_strategy(settings.replicas)
    keras.utils.set_random_seed(settings.seed)
    network = make_network(settings)
    shape = settings.ways, settings.shots, settings.queries, settings.seed
    training, choosing = (Episodes(classes.train, *shape, stream) for stream in (0, 1))
    testing = Episodes(classes.test, *shape, stream=2)
    test = Evaluation(network, testing, settings)
    outcome = {}
    for name, represent in (("pixels", lambda images: images), ("initial", network)):
        rate = best_rate(Evaluation(represent, choosing, settings))
        outcome[name] = Evaluation(represent, testing, settings).accuracy(rate)
    problem = make_problem(network, training, settings)
    learned = learn(problem, test, settings, strategy, verbose)
    return {
        **outcome,
        "learned": test.accuracy(settings.learning_rate),
        **learned,
        "shown": show(test, testing, settings),
    }


def best_rate(evaluation: Evaluation) -> float:
    """The learning rate of the grid whose classifiers are right most often."""
    shares = evaluation.shares(CURVE_EPISODES, GRID).mean(axis=1)
    return GRID[int(np.argmax(shares))]


def learn(
    problem: far.BilevelProblem,
    test: Evaluation,
    settings: Settings,
    strategy: tf.distribute.Strategy | None = None,
    verbose: int = 1,
) -> dict[str, Any]:
    """Descends on the loss of the queries.

    Args:
        problem: What `make_problem` returned.
        test: On held-out classes, for the curve only.
        settings: `Settings`.
        strategy: What `make_strategy` returned.
        verbose: See `far.HyperOptimizer.fit`.

    Returns:
        A dict: "curve", pairs (updates, mean accuracy on held-out classes);
        "outer_value", a list; "seconds".
    """
    curve = []

    def note(updates: int) -> None:
        (shares,) = test.shares(CURVE_EPISODES, [settings.learning_rate])
        curve.append((updates, 100 * float(shares.mean())))

    def before_update(iteration: int, logs: dict[str, Any]) -> None:
        if iteration % settings.test_every == 0:
            note(iteration)

    decay = keras.optimizers.schedules.CosineDecay(
        settings.outer_rate, settings.hyper_iterations
    )
    tuner = far.HyperOptimizer(
        problem, far.ReverseHG(), keras.optimizers.Adam(decay), strategy
    )
    start = time.perf_counter()
    history = tuner.fit(
        settings.hyper_iterations,
        settings.num_steps,
        episodes=settings.episodes,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=before_update)],
        verbose=verbose,
    ).history
    seconds = time.perf_counter() - start
    note(len(history["outer_value"]))
    return {"curve": curve, "outer_value": history["outer_value"], "seconds": seconds}


def show(
    evaluation: Evaluation, episodes: Episodes, settings: Settings, count: int = 3
) -> tuple[list[Episode], np.ndarray]:
    """A few episodes: `Episode`s, and whether their queries are classified rightly."""
    numbers = range(count)
    rates = tf.constant([settings.learning_rate], keras.config.floatx())
    (right,) = evaluation.right(numbers, rates)
    return [episodes(tf.constant(number)) for number in numbers], right
