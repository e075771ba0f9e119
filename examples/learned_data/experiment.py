"""The experiment: ten images to train on, made by hypergradients.

Maclaurin et al. 2015, section 3.3: softmax regression is trained on ten images, one
for each digit, whose pixels are hyperparameters.
"""

import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images, Part

NUM_CLASSES = 10


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    seed: int
    num_steps: int
    learning_rate: float
    momentum: float
    hyper_iterations: int
    hyper_learning_rate: float
    num_draws: int


class Outcome(NamedTuple):
    """What a training run on ten images ends with.

    Attributes:
        train_loss: Mean cross-entropy on the real training images.
        test_loss, test_accuracy: On the test images; percent.
    """

    train_loss: float
    test_loss: float
    test_accuracy: float


class Training:
    """Softmax regression from zero, by momentum descent on ten images.

    Args:
        train, test: Pairs (images, labels).
        settings: `Settings`.

    Attributes:
        bits: Bits of buffer for each weight and step, once something has run.
    """

    def __init__(self, train: Part, test: Part, settings: Settings) -> None:
        self._train, self._test = train, test
        self._settings = settings
        self._pixels = far.Hyperparameter(
            tf.zeros([NUM_CLASSES, train[0].shape[1]]), name="pixels"
        )
        self._log_penalty = far.Hyperparameter(-5.0, name="log_penalty")
        layer = keras.layers.Dense(
            NUM_CLASSES,
            kernel_initializer="zeros",
            kernel_regularizer=far.regularizers.L2(lambda: tf.exp(self._log_penalty)),
        )
        self._model = keras.Sequential([keras.Input((train[0].shape[1],)), layer])
        labels = tf.range(NUM_CLASSES)
        self._problem = far.BilevelProblem(
            inner_objective=lambda: (
                self._loss((tf.convert_to_tensor(self._pixels), labels))
                + sum(self._model.losses)
            ),
            outer_objective=self._loss,
            variables=self._model,
            dynamics=far.Momentum(settings.learning_rate, settings.momentum),
            hyperparameters=[self._pixels, self._log_penalty],
            outer_data=train,
        )
        self._hypergradient = far.ReversibleHG()
        self.bits = None

    def on(self, images: np.ndarray) -> Outcome:
        """Trains on ten images, in the order of their labels; an `Outcome`."""
        self._pixels.assign(images)
        return self._outcome()

    def learn(self, verbose: int = 1) -> tuple[Outcome, np.ndarray, dict[str, Any]]:
        """Descends on the training images' loss from ten blank ones.

        Returns:
            The `Outcome`, the ten images, and a dict of `outer_value` and `seconds`.
        """
        settings = self._settings
        decay = keras.optimizers.schedules.CosineDecay(
            settings.hyper_learning_rate, settings.hyper_iterations
        )
        tuner = far.HyperOptimizer(
            self._problem, self._hypergradient, keras.optimizers.Adam(decay)
        )
        self._pixels.assign(tf.zeros_like(self._pixels))
        start = time.perf_counter()
        history = tuner.fit(
            settings.hyper_iterations, num_steps=settings.num_steps, verbose=verbose
        ).history
        details = {
            "outer_value": history["outer_value"],
            "seconds": time.perf_counter() - start,
        }
        return self._outcome(), self._pixels.numpy(), details

    def _outcome(self) -> Outcome:
        result = self._hypergradient.compute(self._problem, self._settings.num_steps)
        self.bits = result.status.buffer_bits
        images, labels = self._test
        right = np.argmax(self._model(images), axis=1) == labels
        return Outcome(
            float(result.outer_value),
            float(self._loss(self._test)),
            100 * float(np.mean(right)),
        )

    def _loss(self, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        return tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, self._model(images), from_logits=True
            )
        )


def draw(train: Part, random: np.random.RandomState) -> np.ndarray:
    """One real image of each class, at random."""
    images, labels = train
    return np.stack(
        [images[random.choice(np.flatnonzero(labels == c))] for c in range(NUM_CLASSES)]
    )


def compare(data: Images, settings: Settings, verbose: int = 1) -> dict[str, Any]:
    """Ten learned images beside ten real ones.

    Returns:
        A dict: "real", `Outcome`s of several draws; "real_images", those of the
        first; "learned", an `Outcome`; "images"; "bits"; and what
        `Training.learn` returns besides.
    """
    training = Training(data.train, data.test, settings)
    random = np.random.RandomState(settings.seed)
    draws = [draw(data.train, random) for _ in range(settings.num_draws)]
    real = [training.on(images) for images in draws]
    learned, images, details = training.learn(verbose)
    return {
        "real": real,
        "real_images": draws[0],
        "learned": learned,
        "images": images,
        "bits": training.bits,
        **details,
    }
