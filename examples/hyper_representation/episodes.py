"""Few-shot episodes as functions of their number, made inside the graph."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Episode(NamedTuple):
    """An episode: pairs (images, labels); labels count the episode's classes from 0.

    Images are rows of 784 pixels in [0, 1], those of one class after each other.

    Attributes:
        support: Examples to train on.
        query: Other examples of the same classes.
    """

    support: tuple[tf.Tensor, tf.Tensor]
    query: tuple[tf.Tensor, tf.Tensor]


class Episodes:
    """A sequence of episodes, each drawn by its number.

    Args:
        images: uint8 array [classes, examples, 28, 28].
        ways, shots, queries: Integers: classes of an episode, and of each class the
            examples to train on and the other ones.
        seed, stream: Non-negative integers; each pair is another sequence.
    """

    def __init__(
        self,
        images: np.ndarray,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        stream: int,
    ) -> None:
        self._num_classes, self._num_examples = images.shape[:2]
        self._images = tf.constant(images.reshape(-1, 28 * 28))
        self._ways, self._shots, self._queries = ways, shots, queries
        self._seed = tf.constant(seed + (stream << 32), tf.int64)

    def __call__(self, number: tf.Tensor) -> Episode:
        """The `Episode` of a number, a scalar int32 tensor."""
        classes, examples = self.places(number)
        images = tf.gather(
            self._images, classes[:, None] * self._num_examples + examples
        )
        images = tf.cast(images, keras.config.floatx()) / 255
        labels = tf.tile(tf.range(self._ways)[:, None], [1, examples.shape[1]])

        def part(first: int, last: int | None) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.reshape(images[:, first:last], [-1, 28 * 28]),
                tf.reshape(labels[:, first:last], [-1]),
            )

        return Episode(part(0, self._shots), part(self._shots, None))

    def places(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where an episode comes from.

        Returns:
            The classes, an int32 tensor [ways]; of each of them the examples, an int32
            tensor [ways, shots + queries]. All differ from each other.
        """
        count = self._num_classes + self._ways * self._num_examples
        # Integers: random floats differ in a graph and under XLA.
        draws = tf.random.stateless_uniform(
            [count],
            tf.stack([self._seed, tf.cast(number, tf.int64)]),
            minval=None,
            maxval=None,
            dtype=tf.int32,
            alg="philox",
        )
        classes = tf.math.top_k(draws[: self._num_classes], self._ways).indices
        examples = tf.reshape(draws[self._num_classes :], [self._ways, -1])
        kept = self._shots + self._queries
        return classes, tf.math.top_k(examples, kept).indices
