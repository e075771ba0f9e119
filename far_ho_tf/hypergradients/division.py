"""Whether an objective may be split over replicas: is it a mean over examples?"""

import contextlib
import warnings

import ml_dtypes
import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import floating, once_traced, vjp, zeros_for_none
from far_ho_tf.checks import essence
from far_ho_tf.data.shares import Shares
from far_ho_tf.hypergradients.agreement import check_agreement
from far_ho_tf.replicas import OnShares
from far_ho_tf.variables import path_of

# Of what TensorFlow says where shapes do not go together.
_SHAPES_DIFFER = ("imensions must be equal", "ncompatible shapes")


def check_division(problem, inputs, num_steps, strategy):
    """Compares the objectives on a batch with the mean of those on its shares.

    Their values and their gradients are compared: on the first batch at the state that
    a run begins with, and on the batch of the last step beside that state, where
    nothing is equal by chance (see `_beside`). First of all the workers of the
    strategy compare what they have found.

    Args:
        problem: A `BilevelProblem`.
        inputs: `Inputs` of tensors.
        num_steps: Integer, the steps of the run.
        strategy: A `tf.distribute.Strategy` with several replicas.

    Raises:
        ValueError: If an objective is no mean over the examples of a batch, but for
            what BatchNormalization does; or the workers' values differ.
    """
    count = strategy.num_replicas_in_sync
    compare = once_traced(lambda inputs, slope: _compare(problem, inputs, slope, count))
    start = compare(inputs, tf.constant(0.0))
    tolerance = np.sqrt(float(ml_dtypes.finfo(problem.dtype.as_numpy_dtype).eps))
    check_agreement(strategy, inputs, [one[0].numpy() for one in start], tolerance)
    beside = compare(_beside(problem, inputs, num_steps), tf.constant(0.5))
    normalizes = bool(floating(problem.start.extra))
    names = [path_of(v) for v in problem.variables + problem.hyperparameters]
    for (_, inner), (_, outer) in (start, beside):
        _check("inner_objective", inner.numpy(), names, tolerance, normalizes)
        _check("outer_objective", outer.numpy(), names, tolerance, False)


def _compare(problem, inputs, slope, count):
    """Measures how far both objectives are from a mean of the shares'.

    Returns:
        A pair for each objective: its value; a matrix with a row for the value and
        for each gradient, and these columns: the distance from the weighted mean of
        the shares', that from their sum, and the size of what was added up.
    """
    variables, _, hyperparameters = problem.sources(
        inputs.start, inputs.hyperparameters
    )
    sources = variables + hyperparameters

    def measured(function, argument):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = function(argument)
        gradients = vjp(tape, value, sources, tf.ones_like(value))
        return [value, *zeros_for_none(gradients, sources)]

    def compare(role, objective, source, prepared, step):
        batch = source.batch(prepared, step)
        batch = _sloped(batch, Shares(batch, count).size, slope)

        def value(batch):
            return objective(inputs.start, inputs.hyperparameters, batch)

        whole = measured(value, batch)
        shares = Shares(batch, count)
        if shares.size is None:
            return whole[0], tf.zeros([len(whole), 3], tf.float64)
        program = OnShares(value, batch, shares)
        parts = [shares.part(index) for index in range(count)]
        with _rows_explained(role, count):
            rows = [measured(program, part) for part in parts]
        weights = tf.stack([part.weight for part in parts])
        distances = [
            _distances(one, tf.stack(those), weights)
            for one, those in zip(whole, zip(*rows, strict=True), strict=True)
        ]
        return whole[0], tf.cast(tf.stack(distances), tf.float64)

    inner = problem.inner_data, inputs.inner, inputs.first_step
    outer = problem.outer_data, inputs.outer, inputs.outer_step
    return (
        compare("inner_objective", problem.inner_value, *inner),
        compare("outer_objective", problem.outer_value, *outer),
    )


@contextlib.contextmanager
def _rows_explained(role, count):
    """Within, what TensorFlow says of shapes gets a hint at their likely cause."""
    try:
        yield
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        if not any(words in str(error) for words in _SHAPES_DIFFER):
            raise
        raise ValueError(
            f"`{role}` cannot be evaluated on one of {count} shares of a batch, though "
            "on the whole batch. What holds a row for each example (weights, labels, "
            "noise) must be part of the data, or be read by tf.gather with indices "
            f"that are. Received: {essence(error)}"
        ) from error


def _distances(whole, parts, weights):
    """A row of `_compare`'s matrix.

    Args:
        whole: Tensor, on the batch.
        parts: Tensor, those on its shares, stacked.
        weights: Vector, the shares' parts of the examples.
    """
    parts = tf.reshape(parts, [tf.size(weights), -1])
    weights = tf.cast(weights, parts.dtype)
    # A share without examples has one that does not count.
    parts = tf.where(weights[:, None] > 0, parts, tf.zeros_like(parts))
    whole = tf.reshape(whole, [-1])
    mean = tf.linalg.matvec(parts, weights, transpose_a=True)
    total = tf.reduce_sum(parts, axis=0)
    size = tf.maximum(tf.norm(whole), tf.reduce_sum(tf.norm(parts, axis=1)))
    return tf.stack([tf.norm(whole - mean), tf.norm(whole - total), size])


def _check(role, distances, names, tolerance, normalizes):
    """Refuses, or warns of, what is no mean.

    What is not finite passes: it is for the run to say so.

    Args:
        role: Name of the objective.
        distances: Matrix; see `_compare`.
        names: List of the variables' names by which there are gradients.
        tolerance: Relative difference that rounding may make.
        normalizes: Whether there is a reason for another outcome.
    """
    off_mean, off_total, sizes = distances.T
    # A gradient that vanishes, but for rounding, is measured by the others.
    sizes[1:] += 100 * tolerance * np.max(sizes[1:], initial=0.0)
    wrong = off_mean > tolerance * sizes
    if not np.any(wrong):
        return
    row = np.argmax(np.where(wrong, off_mean / np.where(wrong, sizes, 1.0), 0.0))
    received = (
        f"Received: {f'its gradient by `{names[row - 1]}`' if row else 'its value'} on "
        f"a batch differs by {off_mean[row] / sizes[row]:.1e}, relatively, from the "
        "weighted mean of those on the replicas' shares"
    )
    # A constant term hides it in the value, but not in the gradients.
    decisive = wrong[1:] if np.any(wrong[1:]) else wrong[:1]
    of_total = (off_total <= tolerance * sizes)[-decisive.size :]
    if np.all(of_total[decisive]):
        raise ValueError(
            f"`{role}` must be a mean over the examples of a batch, to be split over "
            "replicas: it is a sum, perhaps divided by a number. Divide it by the "
            f"number of examples that it is given, as tf.reduce_mean does. {received}"
        )
    if not normalizes:
        raise ValueError(
            f"`{role}` must be a mean over the examples of a batch (and terms that do "
            "not depend on the batch), to be split over replicas. Losses that compare "
            "examples with each other, or divide by the sum of their weights, are not, "
            f"nor is a function, such as a root, of a mean. {received}"
        )
    warnings.warn(
        f"`{role}` normalizes by batches (BatchNormalization), or is in another way no "
        "mean over the examples of a batch: each replica takes its share by itself, so "
        f"that the run is another than on one. {received}",
        stacklevel=4,
    )


def _beside(problem, inputs, num_steps):
    """`Inputs` of another step and point, where nothing is equal by chance.

    With weights of zero or equal hyperparameters all examples have the same loss, and
    much is a mean that is none elsewhere. The batch of the last step may hold what the
    first does not, such as a mask with holes.
    """
    random = np.random.RandomState(0)

    def moved(tensor, constraint=None):
        array = tensor.numpy().astype(np.float64)
        array *= 1 + 0.1 * random.rand(*array.shape)
        array += 0.01 * random.rand(*array.shape)
        value = tf.cast(tf.constant(array), tensor.dtype)
        return value if constraint is None else constraint(value)

    return inputs._replace(
        first_step=inputs.first_step + (num_steps - 1),
        start=inputs.start._replace(variables=list(map(moved, inputs.start.variables))),
        hyperparameters=[
            moved(value, getattr(variable, "constraint", None))
            for value, variable in zip(
                inputs.hyperparameters, problem.hyperparameters, strict=True
            )
        ],
    )


def _sloped(batch, size, slope):
    """A batch of that size, whose floating tensors fall off by `slope` to the last.

    So no two shares are alike, and weights that are all one are so no more.
    """
    if size is None:
        return batch
    ramp = 1.0 - slope * tf.linspace(0.0, 1.0, size)

    def scaled(tensor):
        if not (tensor.shape.rank and tensor.dtype.is_floating):
            return tensor
        shape = [-1] + [1] * (tensor.shape.rank - 1)
        return tensor * tf.cast(tf.reshape(ramp, shape), tensor.dtype)

    return tf.nest.map_structure(scaled, batch)
