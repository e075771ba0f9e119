"""Whether the workers of a strategy hold the same values and data."""

import numpy as np
import tensorflow as tf

from far_ho_tf.distribution import gathered


def check_agreement(strategy, inputs, values, tolerance):
    """Refuses workers that began with other values, or hold other data.

    Args:
        strategy: A `tf.distribute.Strategy`.
        inputs: `Inputs` of tensors.
        values: Pair of numbers, the inner and the outer objective on their batches.
        tolerance: Relative difference that rounding may make.

    Raises:
        ValueError: On all workers, if they differ.
    """
    prints = {
        "hyperparameters": _fingerprint(inputs.hyperparameters),
        "inner state": _fingerprint(tf.nest.flatten(inputs.start)),
        "inner_data": values[0],
        "outer_data": values[1],
    }
    vector = tf.constant(list(prints.values()), tf.float64)
    for name, column in zip(prints, gathered(strategy, vector).numpy().T, strict=True):
        spread = np.max(column) - np.min(column)
        if spread > tolerance * np.max(np.abs(column)):
            raise ValueError(
                f"All workers must have the same {name}: each holds all of the data "
                "and takes its share of each batch, and begins with the same values "
                "(make variables within `strategy.scope()`, or call "
                "keras.utils.set_random_seed). Received fingerprints, by replica: "
                f"{column.tolist()}"
            )


def _fingerprint(tensors):
    """A number that other values would not have, by chance."""
    total = 0.0
    for tensor in tensors:
        flat = np.ravel(tensor).astype(np.float64)
        total += float(flat @ np.sin(1.0 + np.arange(flat.size))) if flat.size else 0.0
    return total
