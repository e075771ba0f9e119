"""The experiment: an L2 penalty for each weight.

Maclaurin et al. 2015, section 3.2: softmax regression whose 7,850 weights have a
penalty each, by the hypergradient of the validation loss.
"""

import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images, Part

# Logarithms of global penalties; the first is as good as none.
GRID = (-20.0, -10.0, -9.0, -8.0, -7.0, -6.5, -6.0, -5.5, -5.0, -4.0)


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    num_seeds: int
    num_train: int
    num_validation: int
    num_steps: int
    learning_rate: float
    momentum: float
    hyper_iterations: int
    hyper_learning_rate: float
    start_log_penalty: float


class Losses(NamedTuple):
    """What a training run ends with.

    Attributes:
        train, validation, test: Mean cross-entropies, without penalties.
        test_accuracy: Percent.
    """

    train: float
    validation: float
    test: float
    test_accuracy: float


class Regression:
    """Softmax regression with a penalty for each weight.

    Args:
        train, validation, test: Pairs (images, labels).
        settings: `Settings`.
    """

    def __init__(
        self, train: Part, validation: Part, test: Part, settings: Settings
    ) -> None:
        self._parts = train, validation, test
        self._settings = settings
        self._log_penalties = [
            far.Hyperparameter(tf.zeros(shape), name=f"log_penalties_of_{name}")
            for name, shape in (("kernel", (784, 10)), ("bias", (10,)))
        ]
        of_kernel, of_bias = (
            far.regularizers.L2(lambda penalties=penalties: tf.exp(penalties))
            for penalties in self._log_penalties
        )
        layer = keras.layers.Dense(
            10,
            kernel_initializer="zeros",
            kernel_regularizer=of_kernel,
            bias_regularizer=of_bias,
        )
        self._model = keras.Sequential([keras.Input((784,)), layer])
        self._problem = far.BilevelProblem(
            inner_objective=lambda batch: self._loss(batch) + sum(self._model.losses),
            outer_objective=self._loss,
            variables=self._model,
            dynamics=far.Momentum(settings.learning_rate, settings.momentum),
            hyperparameters=self._log_penalties,
            inner_data=train,
            outer_data=validation,
        )
        self._hypergradient = far.ReverseHG()

    def begin(self, log_penalty: float) -> None:
        """Gives all weights the same penalty."""
        for penalties in self._log_penalties:
            penalties.assign(tf.fill(penalties.shape, log_penalty))

    def train(self) -> Losses:
        """Trains with the penalties as they are; returns `Losses`."""
        self._hypergradient.compute(self._problem, self._settings.num_steps)
        images, labels = self._parts[-1]
        right = np.argmax(self._model(images), axis=1) == labels
        losses = (float(self._loss(part)) for part in self._parts)
        return Losses(*losses, 100 * float(np.mean(right)))

    def learn(self, verbose: int = 1) -> dict[str, Any]:
        """Descends on the validation loss after the last step.

        Returns:
            A dict with the `outer_value` before each update and the `seconds`.
        """
        settings = self._settings
        decay = keras.optimizers.schedules.CosineDecay(
            settings.hyper_learning_rate, settings.hyper_iterations
        )
        tuner = far.HyperOptimizer(
            self._problem,
            self._hypergradient,
            keras.optimizers.Adam(decay, beta_1=0.5),
        )
        start = time.perf_counter()
        history = tuner.fit(
            settings.hyper_iterations, num_steps=settings.num_steps, verbose=verbose
        ).history
        return {
            "outer_value": history["outer_value"],
            "seconds": time.perf_counter() - start,
        }

    def maps(self) -> np.ndarray:
        """Log penalties of the 10 classes' weights, of shape (10, 28, 28)."""
        return self._log_penalties[0].numpy().T.reshape(10, 28, 28)

    def _loss(self, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        return tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, self._model(images), from_logits=True
            )
        )


def split(part: Part, seed: int, settings: Settings) -> list[Part]:
    """Training and validation set of a seed, each a pair (images, labels)."""
    images, labels = part
    order = np.random.RandomState(seed).permutation(len(images))
    train, validation = np.split(order, [settings.num_train])
    return [(images[part], labels[part]) for part in (train, validation)]


def best_of_grid(regression: Regression) -> tuple[float, dict[float, Losses]]:
    """The global penalty with the least validation loss.

    Returns:
        A pair: its logarithm, and a mapping from logarithms to `Losses`.
    """
    tried = {}
    for log_penalty in GRID:
        regression.begin(log_penalty)
        tried[log_penalty] = regression.train()
    return min(tried, key=lambda one: tried[one].validation), tried


def compare(data: Images, settings: Settings, verbose: int = 1) -> list[dict[str, Any]]:
    """What `compare_on_split` returns for each seed."""
    return [
        compare_on_split(data, seed, settings, verbose)
        for seed in range(settings.num_seeds)
    ]


def compare_on_split(
    data: Images, seed: int, settings: Settings, verbose: int = 1
) -> dict[str, Any]:
    """Global penalties and one per weight, on the split of a seed.

    Args:
        data: The images of the training and of the validation set are together in
            `train`.
        seed: Integer.
        settings: `Settings`.
        verbose: As in `HyperOptimizer.fit`.

    Returns:
        A dict with the `Losses` of "none", "global", "both" (the best global
        penalty, trained on training and validation set) and "per_weight", the
        logarithm of the best global penalty, the `maps`, and what
        `Regression.learn` returns.
    """
    train, validation = split(data.train, seed, settings)
    regression = Regression(train, validation, data.test, settings)
    best, tried = best_of_grid(regression)
    regression.begin(settings.start_log_penalty)
    learned = regression.learn(verbose)
    per_weight = regression.train()
    whole = Regression(data.train, validation, data.test, settings)
    whole.begin(best)
    return {
        "losses": {
            "none": tried[GRID[0]],
            "global": tried[best],
            "both": whole.train(),
            "per_weight": per_weight,
        },
        "best_global": best,
        "maps": regression.maps(),
        **learned,
    }
