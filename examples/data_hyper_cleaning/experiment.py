"""The experiment of data hyper-cleaning.

Franceschi et al. 2017, section 5.1: half of the training labels are wrong; a
weight per training image is tuned by hypergradient descent on the validation
loss, and the images whose weight vanishes are thrown away.
"""

import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from examples.common.mnist import Images, Part

FLAG_BELOW = 1e-3


class Settings(NamedTuple):
    """What the flags of run.py set, by their names."""

    seed: int
    num_steps: int
    learning_rate: float
    momentum: float
    hyper_iterations: int
    hyper_learning_rate: float
    radius: float
    final_steps: int


class Outcome(NamedTuple):
    """What the experiment comes to.

    Attributes:
        images: The training images.
        given, true: Their labels, as they are trained on and as they are.
        wrong: A boolean array that tells which of the given labels are wrong.
        cleaned: What `clean` returned.
        accuracies: Percent on the test images of the final training on all images,
            on those with right labels and on those kept: "baseline", "oracle", "ours".
    """

    images: np.ndarray
    given: np.ndarray
    true: np.ndarray
    wrong: np.ndarray
    cleaned: dict[str, Any]
    accuracies: dict[str, float]


def compare(data: Images, settings: Settings, verbose: int = 1) -> Outcome:
    """Training on the kept images beside that on all and on the clean ones.

    Args:
        data: Images with right labels, of which half become wrong.
        settings: `Settings`.
        verbose: As in `HyperOptimizer.fit`.
    """
    images, true = data.train
    given, wrong = corrupt(true, settings.seed)
    cleaned = clean((images, given), data.validation, wrong, settings, verbose)
    print("Training on all, on the clean and on the kept images ...", flush=True)
    masks = {
        "baseline": np.ones_like(wrong),
        "oracle": ~wrong,
        "ours": cleaned["weights"] >= FLAG_BELOW,
    }
    accuracies = {
        name: final_accuracy(
            [(images[mask], given[mask]), data.validation], data.test, settings
        )
        for name, mask in masks.items()
    }
    return Outcome(images, given, true, wrong, cleaned, accuracies)


def corrupt(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives half of the labels another, uniformly drawn class.

    Returns:
        The new labels, and a boolean array that tells which are wrong.
    """
    random = np.random.RandomState(seed)
    count = len(labels) // 2
    chosen = random.permutation(len(labels))[:count]
    wrong = np.zeros(len(labels), bool)
    wrong[chosen] = True
    given = labels.copy()
    given[chosen] = (labels[chosen] + random.randint(1, 10, count)) % 10
    return given, wrong


def softmax_regression() -> keras.Model:
    """Weights that start from zero, and logits."""
    return keras.Sequential(
        [keras.Input((784,)), keras.layers.Dense(10, kernel_initializer="zeros")]
    )


def make_problem(
    weights: far.Hyperparameter, train: Part, validation: Part, settings: Settings
) -> far.BilevelProblem:
    """Softmax regression on weighted images; outside the loss on other images."""
    model = softmax_regression()

    def losses(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        return keras.losses.sparse_categorical_crossentropy(
            labels, model(images), from_logits=True
        )

    return far.BilevelProblem(
        inner_objective=lambda batch: tf.reduce_mean(weights * losses(batch)),
        outer_objective=lambda batch: tf.reduce_mean(losses(batch)),
        variables=model,
        dynamics=far.Momentum(settings.learning_rate, settings.momentum),
        hyperparameters=[weights],
        inner_data=train,
        outer_data=validation,
    )


def clean(
    train: Part,
    validation: Part,
    wrong: np.ndarray,
    settings: Settings,
    verbose: int = 1,
) -> dict[str, Any]:
    """Tunes one weight per training image.

    Args:
        train, validation: Pairs (images, labels); the training labels as given.
        wrong: Which are wrong: for the curves only, not for the tuning.
        settings: `Settings`.
        verbose: As in `HyperOptimizer.fit`.

    Returns:
        A dict with the final `weights`, the `hypergradient` there, the
        `history` (lists over hyper-iterations: first the initial weights, last
        the final ones) and the `seconds` it took.
    """
    count = len(train[0])
    weights = far.Hyperparameter(
        tf.fill([count], settings.radius / count),
        name="weights",
        constraint=far.constraints.CappedSimplex(settings.radius),
    )
    problem = make_problem(weights, train, validation, settings)
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.hyper_learning_rate, settings.hyper_iterations
    )
    tuner = far.HyperOptimizer(
        problem, optimizer=keras.optimizers.Adam(schedule, beta_1=0.5)
    )
    scores = []
    start = time.time()
    history = tuner.fit(
        settings.hyper_iterations,
        num_steps=settings.num_steps,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: scores.append(score(weights.numpy(), wrong))
            )
        ],
        verbose=verbose,
    ).history
    seconds = time.time() - start
    last = tuner.hypergradient.compute(problem, settings.num_steps)
    scores.append(score(weights.numpy(), wrong))
    return {
        "weights": weights.numpy(),
        "hypergradient": last.hypergradients[0].numpy(),
        "history": {
            "outer_value": [*history["outer_value"], float(last.outer_value)],
            "f1": [one["f1"] for one in scores],
            "flagged": [one["flagged"] for one in scores],
        },
        "seconds": seconds,
    }


def score(weights: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of flagging the images of no weight."""
    flagged = weights < FLAG_BELOW
    hits = int(np.sum(flagged & wrong))
    precision = hits / max(int(flagged.sum()), 1)
    recall = hits / max(int(wrong.sum()), 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "flagged": int(flagged.sum()),
    }


def final_accuracy(parts: list[Part], test: Part, settings: Settings) -> float:
    """Trains on all examples of `parts` alike; returns percent on `test`."""
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    model = softmax_regression()
    model.compile(
        keras.optimizers.SGD(settings.learning_rate, settings.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=settings.final_steps,
        jit_compile=False,
    )
    steps = settings.final_steps
    full_batch = tf.data.Dataset.from_tensors((images, labels)).repeat(steps)
    model.fit(full_batch, steps_per_epoch=steps, shuffle=False, verbose=0)
    predicted = keras.ops.argmax(model(test[0]), axis=-1)
    return round(100 * float(np.mean(predicted == test[1])), 4)
