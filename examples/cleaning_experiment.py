"""The experiment behind data_hyper_cleaning.py.

Franceschi et al. 2017, section 5.1: half of the training labels are wrong; a
weight per training image is tuned by hypergradient descent on the validation
loss, and the images whose weight vanishes are thrown away.
"""

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far

FLAG_BELOW = 1e-3


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of the experiment; see the flags of data_hyper_cleaning.py."""

    num_steps: int
    learning_rate: float
    momentum: float
    hyper_iterations: int
    hyper_learning_rate: float
    radius: float
    final_steps: int


def corrupt(labels, seed):
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


def softmax_regression():
    return keras.Sequential(
        [keras.Input((784,)), keras.layers.Dense(10, kernel_initializer="zeros")]
    )


def clean(train, validation, wrong, settings, verbose=1):
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
    model = softmax_regression()
    count = len(train[0])
    weights = far.Hyperparameter(
        tf.fill([count], settings.radius / count),
        name="weights",
        constraint=far.constraints.CappedSimplex(settings.radius),
    )

    def losses(batch):
        images, labels = batch
        return keras.losses.sparse_categorical_crossentropy(
            labels, model(images), from_logits=True
        )

    problem = far.BilevelProblem(
        inner_objective=lambda batch: tf.reduce_mean(weights * losses(batch)),
        outer_objective=lambda batch: tf.reduce_mean(losses(batch)),
        variables=model,
        dynamics=far.Momentum(settings.learning_rate, settings.momentum),
        hyperparameters=[weights],
        inner_data=train,
        outer_data=validation,
    )
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


def score(weights, wrong):
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


def final_accuracy(parts, test, settings):
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
