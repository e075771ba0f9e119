"""Whether an objective may be split over replicas: is it a mean over examples?"""

import warnings

import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import floating
from far_ho_tf.data.shares import Shares
from far_ho_tf.distribution import gathered
from far_ho_tf.replicas import traced


def check_division(problem, inputs, strategy):
    """Compares the objectives on a batch with the mean of those on its shares.

    At the state and with the batch that a run begins with, without derivatives. Then
    compares what the workers of the strategy have found.

    Args:
        problem: A `BilevelProblem`.
        inputs: `Inputs` of tensors.
        strategy: A `tf.distribute.Strategy` with several replicas.

    Raises:
        ValueError: If an objective is no mean over the examples of a batch, but for
            what BatchNormalization does; or the workers' values differ.
    """
    compare = tf.function(
        lambda inputs: _compare(problem, inputs, strategy.num_replicas_in_sync),
        autograph=False,
    )
    values = [tensor.numpy() for tensor in compare(inputs)]
    tolerance = np.sqrt(np.finfo(problem.dtype.as_numpy_dtype).eps)
    normalizes = bool(floating(problem.start.extra))
    for role, (whole, mean, total) in zip(
        ("inner_objective", "outer_objective"), values, strict=True
    ):
        _check(role, whole, mean, total, tolerance, normalizes and role[0] == "i")
    _check_agreement(strategy, problem, inputs, values, tolerance)


def _compare(problem, inputs, count):
    """For both objectives the value on a batch, and mean and sum of the shares'."""

    def compare(objective, source, prepared, step):
        batch = source.batch(prepared, step)

        def value(batch):
            return objective(inputs.start, inputs.hyperparameters, batch)

        whole = value(batch)
        shares = Shares(batch, count)
        if shares.size is None:
            return tf.stack([whole, whole, whole])
        call = traced(value, batch, shares)
        parts = [shares.part(index) for index in range(count)]
        values = tf.stack([call(part)(part) for part in parts])
        weights = tf.cast(tf.stack([part.weight for part in parts]), values.dtype)
        mean = tf.reduce_sum(values * weights)
        total = tf.reduce_sum(tf.where(weights > 0, values, tf.zeros_like(values)))
        return tf.stack([whole, mean, total])

    return [
        compare(
            problem.inner_value, problem.inner_data, inputs.inner, inputs.first_step
        ),
        compare(
            problem.outer_value, problem.outer_data, inputs.outer, inputs.outer_step
        ),
    ]


def _check(role, whole, mean, total, tolerance, normalizes):
    scale = max(abs(whole), abs(total), np.finfo(whole.dtype).tiny)
    if not np.isfinite(scale) or abs(whole - mean) <= tolerance * scale:
        return
    received = (
        f"Received: {whole:g} on the first batch, {mean:g} as the weighted mean of its "
        "values on the replicas' shares"
    )
    if abs(whole - total) <= tolerance * scale:
        raise ValueError(
            f"`{role}` must be a mean over the examples of a batch, to be split over "
            f"replicas: it is a sum (divide it by the batch's size). {received}"
        )
    if not normalizes:
        raise ValueError(
            f"`{role}` must be a mean over the examples of a batch (and terms that do "
            "not depend on the batch), to be split over replicas. Losses that compare "
            "examples with each other, or divide by the sum of their weights, are not. "
            f"{received}"
        )
    warnings.warn(
        f"`{role}` normalizes by batches (BatchNormalization): each replica normalizes "
        f"its share by itself, so that the run is another than on one. {received}",
        stacklevel=4,
    )


def _check_agreement(strategy, problem, inputs, values, tolerance):
    """Refuses workers that began with other values, or hold other data."""
    named = {
        "hyperparameters": inputs.hyperparameters,
        "the inner state": tf.nest.flatten(inputs.start),
    }
    prints = [_fingerprint(tensors) for tensors in named.values()]
    prints += [float(whole) for whole, *_ in values]
    names = [*named, "inner_objective on its data", "outer_objective on its data"]
    rows = gathered(strategy, tf.constant(prints, tf.float64)).numpy()
    for name, column in zip(names, rows.T, strict=True):
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
