"""Minibatches that any step can draw again."""

import numbers
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import call_of, check_count, is_integer, require, warn_user
from far_ho_tf.data.permutation import hash32, permute
from far_ho_tf.variables.identity import is_composite, is_variable

# Python numbers in lists that may be meant as tensors, each of them.
_MOST_NUMBERS = 16


class Batches:
    """Minibatches of arrays, shuffled anew in each epoch.

    Stateless: batch `step` is a function of the seed and the step, without a stored
    order. The examples of epoch after epoch
    form one sequence that is cut into batches, so that each epoch has each
    example exactly once and all batches have the same size; where the batch
    size does not divide the number of examples, a batch may hold the end of
    one epoch and the beginning of the next.

    Args:
        tensors: Array or tensor, or a structure of them (tuple, list, dict),
            with one first dimension, the number of examples.
        batch_size: Integer from 1 to the number of examples.
        seed: Integer; another seed gives another order.
        shuffle: Boolean; `False` keeps the order of the examples.

    Raises:
        ValueError: If the numbers of examples differ, or `batch_size` does
            not fit.

    Example:

    >>> import far_ho_tf as far
    >>> batches = far.Batches(tf.range(6), batch_size=3, seed=1)
    >>> sorted(batches(0).numpy().tolist() + batches(1).numpy().tolist())
    [0, 1, 2, 3, 4, 5]

    Source of the permutation: see `data.permutation`.
    """

    def __init__(
        self, tensors: Structure, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        label = "`tensors` of `Batches`"
        refuse_lists(label, tensors)
        refuse_variables(label, tensors)
        refuse_composites(label, tensors)
        self.tensors = tf.nest.map_structure(tf.convert_to_tensor, tensors)
        sizes: set[Any] = {
            tensor.shape[0] if tensor.shape.rank else None
            for tensor in tf.nest.flatten(self.tensors)
        }
        if len(sizes) != 1 or None in sizes:
            shapes = [tuple(t.shape) for t in tf.nest.flatten(self.tensors)]
            raise ValueError(
                "All `tensors` of `Batches` must have the same first "
                f"dimension. Received shapes: {shapes}"
            )
        refuse_empty(label, self.tensors)
        (self.num_examples,) = sizes
        self.batch_size = check_count("batch_size", batch_size, high=self.num_examples)
        require(is_integer(seed), "`seed` must be an integer.", seed=seed)
        self.seed = int(seed)
        self.shuffle = shuffle

    def __repr__(self) -> str:
        shapes = tf.nest.map_structure(lambda t: t.shape.as_list(), self.tensors)
        return call_of(
            self,
            shapes=shapes,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=self.shuffle,
        )

    def indices(self, step: int | tf.Tensor) -> tf.Tensor:
        """Which examples make up the batch of a step.

        Args:
            step: Integer or integer tensor, not negative: a scalar, or with a last
                axis of length 1.

        Returns:
            int32 tensor of shape (batch_size,), or (..., batch_size).
        """
        position = tf.cast(step, tf.int64) * self.batch_size
        position += tf.range(self.batch_size, dtype=tf.int64)
        index = position % self.num_examples
        if not self.shuffle:
            return tf.cast(index, tf.int32)
        epoch = tf.cast(position // self.num_examples, tf.uint32)
        seed = tf.constant(self.seed % 2**32, tf.uint32)
        return permute(index, self.num_examples, hash32(hash32(seed) + epoch))

    def __call__(self, step: int | tf.Tensor) -> Structure:
        """The batch of a step, structured as `tensors`."""
        return gather(self.tensors, self.indices(step))


def gather(tensors: Structure, indices: tf.Tensor) -> Structure:
    """The examples of some indices, in a structure of tensors."""
    return tf.nest.map_structure(lambda t: tf.gather(t, indices), tensors)


def refuse_composites(name: str, data: Structure) -> None:
    """Only dense tensors can be gathered from, stacked and cut by all kinds of data."""
    for leaf in tf.nest.flatten(data):
        require(
            not is_composite(leaf),
            f"{name} must be dense tensors. Remedy: `ragged.to_tensor()`, with the "
            "`row_lengths()` beside it, and tf.sparse.to_dense; an objective may make "
            "a ragged or sparse one of them again.",
            tensor=leaf,
        )


def refuse_empty(name: str, data: Structure) -> None:
    """Data without examples would make NaN of every mean."""
    leaves = tf.nest.flatten(data)
    shapes = [tuple(leaf.shape) for leaf in leaves]
    require(
        leaves and not any(shape[:1] == (0,) for shape in shapes),
        f"{name} must have examples (give None where the objective takes no batch).",
        shapes=shapes,
    )


def refuse_lists(name: str, data: Structure) -> None:
    """Lists are structures of tensors: each number in one would be a tensor."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if not isinstance(data, (list, tuple)):
        return
    leaves = tf.nest.flatten(data)
    plain = all(isinstance(leaf, (numbers.Number, str, bytes)) for leaf in leaves)
    require(
        not plain or len(leaves) <= _MOST_NUMBERS,
        f"{name} must be arrays or tensors: lists are structures of them here. Remedy: "
        "np.asarray of each list of numbers.",
        numbers=len(leaves),
        first=leaves[:1],
    )
    if not plain:
        for part in data:
            refuse_lists(name, part)


def warn_of_broadcasting(name: str, data: Structure) -> None:
    """Warns where one of several tensors has one example, and the others more."""
    shapes = [tuple(leaf.shape) for leaf in tf.nest.flatten(data)]
    sizes = {shape[0] for shape in shapes if shape}
    if isinstance(data, (list, tuple)) and len(sizes) == 2 and 1 in sizes:
        warn_user(
            f"{name} holds tensors of shapes {shapes}: one with a single example is "
            "broadcast over the others' in silence. Remedy: one first dimension for "
            "all, or what is no example read in the objective."
        )


def refuse_variables(name: str, data: Structure) -> None:
    """Data are constants: nothing is differentiated through them."""
    for leaf in tf.nest.flatten(data):
        require(
            not is_variable(leaf),
            f"{name} must be tensors or arrays; read variables in the objective.",
            variable=leaf,
        )
