"""The loss of connectionist temporal classification, differentiable twice.

TensorFlow computes its gradient beside its value, by loops that cannot be
differentiated, or in one kernel. So where a tape looks on, the value is made by the
forward recursion alone: of the logarithms of sums of probabilities, over the frames, in
one loop that TensorFlow can differentiate as often as one likes. Values are equal to
rounding; float64 stays float64.

Source: Graves et al. 2006, section 4.1, equations 6 to 8.
"""

import math
from typing import Any

import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import is_watched
from far_ho_tf.patches.replacing import replace

_own = tf.nn.ctc_loss
# The logarithm of no probability: finite, so that derivatives are, too. And of that
# with which, as TensorFlow has it, a sequence ends in the midst of its labels, where
# there are too few frames for them.
_NEVER, _RARELY = -1e30, math.log(1e-307)


def ctc_loss(
    labels: TensorLike | tf.SparseTensor,
    logits: TensorLike,
    label_length: TensorLike | None,
    logit_length: TensorLike,
    logits_time_major: bool = True,
    unique: Any = None,
    blank_index: int | None = None,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.nn.ctc_loss`, whose arguments and values these are."""
    logits = tf.convert_to_tensor(logits)
    is_sparse = isinstance(labels, tf.SparseTensor)
    if not is_watched(logits) or (
        is_sparse and blank_index is None  # Which TensorFlow refuses by itself.
    ):
        return _own(
            labels,
            logits,
            label_length,
            logit_length,
            logits_time_major,
            unique,
            blank_index,
            name,
        )
    with tf.name_scope(name or "ctc_loss"):
        if is_sparse:
            rows = tf.shape(labels)[0]
            label_length = tf.math.bincount(
                tf.cast(labels.indices[:, 0], tf.int32), minlength=rows
            )
            labels = tf.sparse.to_dense(labels)
        if not logits_time_major:
            logits = tf.transpose(logits, [1, 0, 2])
        blank = blank_index or 0
        if blank < 0:
            blank += tf.shape(logits)[2]
        dtype = logits.dtype
        if dtype in (tf.float16, tf.bfloat16):
            logits = tf.cast(logits, tf.float32)
        labels, label_length, logit_length = (
            tf.cast(one, tf.int32) for one in (labels, label_length, logit_length)
        )
        loss = _loss(logits, labels, label_length, logit_length, blank)
        if is_sparse:  # TensorFlow's kernel ends in an error, which XLA has not.
            none = tf.constant(float("inf"), loss.dtype)
            loss = tf.where(loss > -_RARELY / 2, none, loss)
        return tf.cast(loss, dtype)


def _loss(
    logits: tf.Tensor,
    labels: tf.Tensor,
    label_length: tf.Tensor,
    logit_length: tf.Tensor,
    blank: int | tf.Tensor,
) -> tf.Tensor:
    """−ln p(l|x) of each sequence.

    Args:
        logits: Tensor of shape (frames, batch, classes).
        labels: Integer tensor of shape (batch, longest).
        label_length, logit_length: Integer vectors.
        blank: The number of the blank class.
    """
    path, may_skip = _path(labels, blank)
    never = tf.constant(_NEVER, logits.dtype)
    frames = tf.gather(tf.nn.log_softmax(logits), _over(path, logits), batch_dims=2)
    rarely = tf.constant(_RARELY, logits.dtype)
    places = tf.range(tf.shape(path)[1])
    begins = tf.where(places < 2, tf.zeros_like(frames[0]), never)
    number = tf.range(tf.shape(frames)[0])

    def shifted(alpha: tf.Tensor, by: int) -> tf.Tensor:
        return tf.pad(alpha, [[0, 0], [by, 0]], constant_values=_NEVER)[:, :-by]

    def step(alpha: tf.Tensor, frame: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        probabilities, t = frame
        ways = [alpha, shifted(alpha, 1), tf.where(may_skip, shifted(alpha, 2), never)]
        ways.append(tf.where(t == 0, begins, never))
        moved = tf.reduce_logsumexp(tf.stack(ways), axis=0) + probabilities
        return tf.where((t < logit_length)[:, tf.newaxis], moved, alpha)

    start = tf.fill(tf.shape(begins), never)
    alpha = tf.foldl(step, (frames, number), initializer=start)
    # It may end in the last label or in the blank behind it.
    ends = 2 * label_length[:, tf.newaxis] - places
    ends = tf.where((ends == 0) | (ends == 1), tf.zeros([], alpha.dtype), rarely)
    return -tf.reduce_logsumexp(alpha + ends, axis=1)


def _path(labels: tf.Tensor, blank: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The labels with blanks around each, and which may be reached over a blank."""
    blanks = tf.fill(tf.shape(labels), blank)
    pairs = tf.stack([blanks, labels], axis=2)
    path = tf.reshape(pairs, [tf.shape(labels)[0], -1])
    path = tf.pad(path, [[0, 0], [0, 1]], constant_values=blank)
    before = tf.pad(path, [[0, 0], [2, 0]], constant_values=-1)[:, :-2]
    return path, (path != blank) & (path != before) & (before >= 0)


def _over(path: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The path, for each frame."""
    return tf.tile(path[tf.newaxis], [tf.shape(logits)[0], 1, 1])


def apply() -> None:
    """Puts it in the place of TensorFlow's."""
    replace(tf.nn, "ctc_loss", ctc_loss)
