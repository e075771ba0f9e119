"""Problems on several replicas, and on one device."""

import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification


def mirrored(count):
    """A strategy over logical devices; `None` for 0."""
    if not count:
        return None
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


def minibatches(dynamics, dtype="float64", **options):
    """Batches of 7 of 12 examples, which no number of replicas here divides."""
    setting = Classification(dtype)
    rate = setting.hyper(0.1, "rate")
    options = {"inner_data": far.Batches(setting.train, batch_size=7, seed=1)} | options
    return setting.bilevel(dynamics(rate), [rate], **options)


def outcome(problem, mode, count, num_steps=6):
    result = mode.compute(problem, num_steps, strategy=mirrored(count))
    return [result.outer_value, *result.hypergradients, *result.state.variables]
