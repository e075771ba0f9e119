"""One function applied to many tangents or episodes."""

import contextlib
import logging
import re

import tensorflow as tf
from absl import logging as absl_logging

from far_ho_tf.tracing import specs

# What TensorFlow's vectorizer logs of operations that it cannot vectorize.
_ONE_BY_ONE = re.compile(r"while_loop for converting (\w+)|(\w+) uses a while_loop")
_FAILED = re.compile(r'^op: "(\w+)"', re.MULTILINE)
# A loop or branch that fails is reported through all that is within or around it.
_CONTROL_FLOW = re.compile("While|If|Case")
_reported = set()


def map_stack(function, stack, like, together=True):
    """Applies `function` to each element of a stack: to tangents, or to episodes.

    All at once where TensorFlow can vectorize its operations. An operation
    that it cannot vectorize goes through the elements one by one, and where
    that fails too (`tf.while_loop` under a tangent, as in LSTM layers) the whole
    function does. Either is logged once for each operation.

    Args:
        function: Callable(structure of tensors) -> structure of tensors.
        stack: Structure of tensors whose first axis counts the elements.
        like: Structure of tensors or specs, shaped as `function`'s result is.
        together: Whether to try all at once.

    Returns:
        Structure of tensors with that first axis.
    """
    result = None
    if together:
        with _vectorizer_messages() as messages:
            try:
                result = tf.vectorized_map(function, stack)
            except (ValueError, TypeError, LookupError, NotImplementedError):
                _report(_FAILED, messages, "the step", _CONTROL_FLOW)
            else:
                _report(_ONE_BY_ONE, messages, "it")
    if result is not None:
        return result
    return tf.map_fn(
        function, stack, fn_output_signature=specs(like), parallel_iterations=1
    )


@contextlib.contextmanager
def _vectorizer_messages():
    """Keeps TensorFlow's messages, pages of them, out of the log."""
    messages = []

    def keep(record):
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield messages
    finally:
        logger.removeFilter(keep)


def _report(pattern, messages, what, foremost=None):
    found = {
        name
        for message in messages
        for match in pattern.finditer(message)
        for name in match.groups()
        if name
    }
    if foremost:
        found = {name for name in found if foremost.search(name)} or found
    for name in sorted(found - _reported):
        absl_logging.warning(
            "TensorFlow cannot vectorize %s: %s goes through tangents (or episodes) "
            "one by one. The values are the same; it takes longer.",
            name,
            what,
        )
    _reported.update(found)
