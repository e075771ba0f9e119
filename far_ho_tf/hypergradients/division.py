"""Whether an objective may be split over replicas: is it a mean over examples?"""

import warnings

import ml_dtypes
import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import floating
from far_ho_tf.data.shares import Shares
from far_ho_tf.distribution import gathered
from far_ho_tf.replicas import traced


def check_division(problem, inputs, strategy):
    """Compares the objectives on a batch with the mean of those on its shares.

    With the first batch, at the state that a run begins with and at one beside it,
    without derivatives. Then compares what the workers of the strategy have found.

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
    tolerance = np.sqrt(float(ml_dtypes.finfo(problem.dtype.as_numpy_dtype).eps))
    values = [tensor.numpy() for tensor in compare(inputs)]
    _check_agreement(strategy, inputs, values, tolerance)
    normalizes = bool(floating(problem.start.extra))
    beside = [tensor.numpy() for tensor in compare(_moved(problem, inputs))]
    for inner, outer in (values, beside):
        _check("inner_objective", *inner, tolerance, normalizes)
        _check("outer_objective", *outer, tolerance, False)


def _compare(problem, inputs, count):
    """For both objectives the value on a batch, and mean and sum of the shares'."""

    def compare(objective, source, prepared, step):
        batch = source.batch(prepared, step)

        def value(batch):
            return objective(inputs.start, inputs.hyperparameters, batch)

        whole = value(batch)
        shares = Shares(batch, count)
        if shares.size is None:
            return tf.cast(tf.stack([whole, whole, whole]), tf.float64)
        call = traced(value, batch, shares)
        parts = [shares.part(index) for index in range(count)]
        values = tf.stack([call(part)(part) for part in parts])
        weights = tf.cast(tf.stack([part.weight for part in parts]), values.dtype)
        mean = tf.reduce_sum(values * weights)
        total = tf.reduce_sum(tf.where(weights > 0, values, tf.zeros_like(values)))
        return tf.cast(tf.stack([whole, mean, total]), tf.float64)

    return [
        compare(
            problem.inner_value, problem.inner_data, inputs.inner, inputs.first_step
        ),
        compare(
            problem.outer_value, problem.outer_data, inputs.outer, inputs.outer_step
        ),
    ]


def _check(role, whole, mean, total, tolerance, normalizes):
    scale = max(abs(whole), abs(total), np.finfo(np.float64).tiny)
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
        f"`{role}` normalizes by batches (BatchNormalization), or is in another way no "
        "mean over the examples of a batch: each replica takes its share by itself, so "
        f"that the run is another than on one. {received}",
        stacklevel=4,
    )


def _moved(problem, inputs):
    """`Inputs` beside these, where nothing is equal by chance.

    With weights of zero or equal hyperparameters all examples have the same loss, and
    much is a mean that is none elsewhere.
    """
    random = np.random.RandomState(0)

    def moved(tensor, constraint=None):
        array = tensor.numpy().astype(np.float64)
        array *= 1 + 0.1 * random.rand(*array.shape)
        array += 0.01 * random.rand(*array.shape)
        value = tf.cast(tf.constant(array), tensor.dtype)
        return value if constraint is None else constraint(value)

    return inputs._replace(
        start=inputs.start._replace(variables=list(map(moved, inputs.start.variables))),
        hyperparameters=[
            moved(value, getattr(variable, "constraint", None))
            for value, variable in zip(
                inputs.hyperparameters, problem.hyperparameters, strict=True
            )
        ],
    )


def _check_agreement(strategy, inputs, values, tolerance):
    """Refuses workers that began with other values, or hold other data."""
    prints = {
        "hyperparameters": _fingerprint(inputs.hyperparameters),
        "inner state": _fingerprint(tf.nest.flatten(inputs.start)),
        "inner_data": values[0][0],
        "outer_data": values[1][0],
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
