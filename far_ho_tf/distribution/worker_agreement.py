"""Whether the workers of a strategy hold the same values and data."""

import json
import zlib

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.data.source import checksum
from far_ho_tf.distribution.interfaces import Problem
from far_ho_tf.distribution.strategies import gathered, worker_name
from far_ho_tf.variables.identity import read

# Relative difference of first batches that other machines' rounding may make.
_ROUNDING = 1e-6


def check_agreement(problem: Problem, strategy: tf.distribute.Strategy | None) -> None:
    """Refuses workers that begin with other values, or hold other data, than others.

    Hyperparameters, the inner state, arrays of data and settings of `far.Batches` must
    be the same, bit for bit; the first batches of other data up to rounding. Does
    nothing where there is one worker.

    Args:
        problem: A `PureProblem`.
        strategy: A `tf.distribute.Strategy` or `None`.

    Raises:
        ValueError: On all workers, if they differ.
    """
    if worker_name(strategy) is None:
        return
    prints: dict[str, float] = {
        "hyperparameters": checksum(read(problem.hyperparameters)),
        "inner state": checksum(problem.start),
    }
    for name in ("inner_data", "outer_data"):
        source = getattr(problem, name)
        description = json.dumps(source.description()).encode()
        prints[f"{name}, which differ in their arrays or settings"] = zlib.crc32(
            description
        )
        prints[f"{name}, of which the first batches differ"] = _fingerprint(
            source.first_batch()
        )
    vector = tf.constant(list(prints.values()), tf.float64)
    for name, column in zip(prints, gathered(strategy, vector).numpy().T, strict=True):
        allowed = _ROUNDING * np.max(np.abs(column)) if "batches" in name else 0.0
        # Not a number is a difference too.
        if not np.max(column) - np.min(column) <= allowed:
            raise ValueError(
                f"All workers must have the same {name}: each holds all of the data "
                "and takes its shard of each batch, and begins with the same values "
                "(make variables within `strategy.scope()`, or call "
                "keras.utils.set_random_seed). Received fingerprints, by replica: "
                f"{column.tolist()}"
            )


def _fingerprint(tensors: Structure) -> float:
    """A number that other values would not have, by chance."""
    total = 0.0
    for tensor in tf.nest.flatten(tensors):
        if tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool:
            flat = np.ravel(tensor).astype(np.float64)
        else:
            flat = np.array([checksum(tensor)], np.float64)
        total += float(flat @ np.sin(1.0 + np.arange(flat.size))) if flat.size else 0.0
    return total
