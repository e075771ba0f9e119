"""Random draws for a part of a batch that are those for the whole batch.

Dropout draws a mask of the shape of what it is given. On a replica's share of a
batch it would draw another mask than on the batch, so that a run would depend on the
number of replicas. Within `shared_draws` it draws that of the batch and takes its rows.
"""

import contextlib
import functools

import tensorflow as tf

_NAMES = ("stateless_normal", "stateless_truncated_normal", "stateless_uniform")
_samplers = {name: getattr(tf.random, name) for name in _NAMES}
_categorical = tf.random.stateless_categorical
_dropout = tf.nn.experimental.stateless_dropout


@contextlib.contextmanager
def shared_draws(size, first, total):
    """Within, draws with a first axis of `size` are rows of those with `total`.

    Keras' random layers and `keras.random` draw by TensorFlow's public functions,
    which are replaced for the time of a trace, in the whole process. Gamma and
    binomial draws are left as they are.

    Args:
        size: The number of examples of the share: a Python integer or a tensor;
            `None` where it has none.
        first: Scalar int32 tensor, the place of the share's first example.
        total: The number of examples of the batch: a Python integer or a tensor.
    """
    if size is None:
        yield
        return
    rows = _Rows(size, first, total)
    for name in _NAMES:
        setattr(tf.random, name, functools.partial(rows.sample, _samplers[name]))
    tf.random.stateless_categorical = rows.categorical
    tf.nn.experimental.stateless_dropout = rows.dropout
    try:
        yield
    finally:
        for name in _NAMES:
            setattr(tf.random, name, _samplers[name])
        tf.random.stateless_categorical = _categorical
        tf.nn.experimental.stateless_dropout = _dropout


class _Rows:
    """The functions that take the place of TensorFlow's."""

    def __init__(self, size, first, total):
        self._size = size
        self._first = first
        self._total = total

    def sample(self, sampler, shape, *arguments, **options):
        """A draw of a shape, by one of `_samplers`."""
        shape = _known(shape)
        if not self._leads(shape):
            return sampler(shape, *arguments, **options)
        whole = tf.concat([[self._total], tf.cast(shape[1:], tf.int32)], 0)
        return self._cut(sampler(whole, *arguments, **options))

    def categorical(self, logits, num_samples, seed, *arguments, **options):
        """As TensorFlow's; each row has its own draws, by its place."""
        if not self._leads(logits.shape.as_list()):
            return _categorical(logits, num_samples, seed, *arguments, **options)
        after = self._total - self._first - self._size
        logits = tf.pad(logits, [[self._first, after], [0, 0]])
        return self._cut(_categorical(logits, num_samples, seed, *arguments, **options))

    def dropout(
        self, x, rate, seed, rng_alg="auto_select", noise_shape=None, name=None
    ):
        """As TensorFlow's, whose mask this draws in the same way."""
        with tf.name_scope(name or "stateless_dropout"):
            x = tf.convert_to_tensor(x)
            rate = tf.convert_to_tensor(rate, x.dtype)
            shape = tf.shape(x) if noise_shape is None else noise_shape
            kept = self.sample(
                _samplers["stateless_uniform"], shape, seed, dtype=x.dtype, alg=rng_alg
            )
            return tf.where(kept >= rate, x / (1 - rate), tf.zeros_like(x))

    def _leads(self, shape):
        """Whether a shape begins with the number of examples of the share.

        A first axis that is not known while tracing is one that batches bring.
        """
        if not tf.is_tensor(shape) and not len(shape):
            return False
        first = None if tf.is_tensor(shape) else tf.get_static_value(shape[0])
        if isinstance(self._size, int) and first is not None:
            return first == self._size
        return first is None

    def _cut(self, whole):
        return whole[self._first : self._first + self._size]


def _known(shape):
    """A shape as a list where its length is known, as a tensor otherwise."""
    if isinstance(shape, tf.TensorShape):
        return shape.as_list()
    static = tf.get_static_value(shape) if tf.is_tensor(shape) else None
    return shape if static is None else static.tolist()
