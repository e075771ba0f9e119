"""Replayable data: any step's batch can be computed again at any time.

The backward pass visits the steps in reverse order and must see, at each, the
batch that the forward pass saw.
"""

import tensorflow as tf

from far_ho_tf.checks import (
    CALLABLE_ERRORS,
    argument_names,
    essence,
    num_arguments,
    require,
)
from far_ho_tf.data.batches import Batches, refuse_variables
from far_ho_tf.data.datasets import DatasetSource
from far_ho_tf.data.source import Source, checksum, ended


def as_source(data, name, cycle=False):
    """Wraps any kind of data that `BilevelProblem` takes as a `Source`.

    Args:
        data: `None`, a structure of tensors, `Batches`, a `tf.data.Dataset`
            or a callable of the step.
        name: For messages: "inner_data" or "outer_data".
        cycle: Whether a finite `tf.data.Dataset` starts over at its end.

    Returns:
        A `Source`.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Batches):
        return _BatchesSource(data)
    if isinstance(data, tf.data.Dataset):
        return DatasetSource(data.repeat() if cycle else data, name)
    if callable(data):
        return _CallableSource(data, name)
    return _ConstantSource(data, name)


class _ConstantSource(Source):
    """One full batch, or none at all (`data=None`)."""

    def __init__(self, data, name):
        self.is_empty = data is None
        refuse_variables(f"`{name}`", data)
        try:
            self._tensors = (
                ()
                if data is None
                else tf.nest.map_structure(tf.convert_to_tensor, data)
            )
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`{name}` must be None, tensors, `Batches`, a "
                "`tf.data.Dataset` or a callable of the step. Received: "
                f"{type(data).__name__}"
            ) from error

    def prepare(self, first_step, num_steps):
        del first_step, num_steps
        return self._tensors

    def batch(self, prepared, step, episode=None):
        del step, episode
        return prepared

    def description(self):
        return {"checksum": checksum(self._tensors)}


class _BatchesSource(Source):
    def __init__(self, batches):
        self._batches = batches

    def prepare(self, first_step, num_steps):
        del first_step, num_steps
        return self._batches.tensors

    def batch(self, prepared, step, episode=None):
        del episode
        return self._batches.gather(prepared, step)

    def description(self):
        names = ("batch_size", "seed", "shuffle")
        settings = {name: getattr(self._batches, name) for name in names}
        return settings | {"checksum": checksum(self._batches.tensors)}


class _CallableSource(Source):
    def __init__(self, function, name):
        self._function = function
        self._name = name
        self._checked = -1
        self.has_episodes = num_arguments(function) == 2
        names = argument_names(function)
        require(
            names[:1] != ["episode"] and names[1:2] != ["step"],
            f"`{name}` must be a callable of (step, episode), in this order.",
            arguments=names,
        )

    def prepare(self, first_step, num_steps):
        """Asks for the last batch: compiled code would not miss it.

        XLA clamps an index that is out of range instead of raising.
        """
        self.check_last(first_step + num_steps - 1)
        return ()

    def batch(self, prepared, step, episode=None):
        del prepared
        episode = tf.constant(0) if episode is None else episode
        arguments = (step, episode) if self.has_episodes else (step,)
        try:
            batch = self._function(*arguments)
            return tf.nest.map_structure(tf.convert_to_tensor, batch)
        except CALLABLE_ERRORS as error:
            raise ValueError(
                f"`{self._name}` must be a callable that makes a batch of tensors, by "
                "TensorFlow's operations, from the step (and the number of an episode, "
                "where it takes two arguments), scalar int32 tensors (index "
                f"lists and arrays by tf.gather). Received: {self._function!r}, which "
                f"fails with {error}"
            ) from error

    def check_last(self, last):
        if last <= self._checked:
            return
        try:  # In a graph, as later: run eagerly, it would fail in other ways.
            batch = self._traced(())((), tf.constant(last), tf.constant(0))
        except tf.errors.InvalidArgumentError as error:
            raise ended(self._name, last, f"it fails with {essence(error)}") from error
        for tensor in tf.nest.flatten(batch):
            shape = tf.convert_to_tensor(tensor).shape
            if shape.rank and shape[0] == 0:
                raise ended(
                    self._name, last, f"an empty batch, of shape {tuple(shape)}"
                )
        self._checked = last
