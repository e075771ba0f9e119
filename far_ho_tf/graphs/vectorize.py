"""One function applied to many tangents or episodes."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.graphs.functions import specs

# What TensorFlow's vectorizer logs of operations that it cannot vectorize.
_ONE_BY_ONE = re.compile(r"while_loop for converting (\w+)|(\w+) uses a while_loop")
_FAILED = re.compile(r'^op: "(\w+)"', re.MULTILINE)
# A loop or branch that fails is reported through all that is within or around it.
_CONTROL_FLOW = re.compile("While|If|Case")

# Mappings that `noted` has opened. Only the thread that holds `TRACING` gets here.
_open: list[dict[str, bool]] = []


@contextlib.contextmanager
def noted() -> Iterator[dict[str, bool]]:
    """Within, `map_stack` takes note of what it does one by one.

    Yields:
        A mapping from names of operations to whether the whole function goes one by
        one because of them, not they alone.
    """
    names = {}
    _open.append(names)
    try:
        yield names
    finally:
        _open.pop()


def map_stack(
    function: Callable[[Structure], Structure],
    stack: Structure,
    like: Structure,
    together: bool = True,
    obstacle: str = "",
) -> Structure:
    """Applies `function` to each element of a stack: to tangents, or to episodes.

    All at once where TensorFlow can vectorize its operations. An operation
    that it cannot vectorize goes through the elements one by one, and where
    that fails too (a branch) the whole function does: see `noted`.

    Args:
        function: Callable(structure of tensors) -> structure of tensors.
        stack: Structure of tensors whose first axis counts the elements.
        like: Structure of tensors or specs, shaped as `function`'s result is.
        together: Whether to try all at once.
        obstacle: Name of an operation in it that is known to fail, so that it is not
            tried; an empty string for none.

    Returns:
        Structure of tensors with that first axis.
    """
    result = None
    if obstacle and together:
        _note({obstacle}, stack, whole=True)
    elif together:
        with _vectorizer_messages() as messages:
            try:
                result = tf.vectorized_map(function, stack)
            except (ValueError, TypeError, LookupError, NotImplementedError):
                found = _names(_FAILED, messages)
                foremost = {name for name in found if _CONTROL_FLOW.search(name)}
                _note(foremost or found, stack, whole=True)
            else:
                _note(_names(_ONE_BY_ONE, messages), stack, whole=False)
    if result is not None:
        return result
    return tf.map_fn(
        function, stack, fn_output_signature=specs(like), parallel_iterations=1
    )


@contextlib.contextmanager
def _vectorizer_messages() -> Iterator[list[str]]:
    """Keeps TensorFlow's messages, pages of them, out of the log."""
    messages = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield messages
    finally:
        logger.removeFilter(keep)


def _names(pattern: re.Pattern[str], messages: Iterable[str]) -> set[str]:
    return {
        name
        for message in messages
        for match in pattern.finditer(message)
        for name in match.groups()
        if name
    }


def _note(names: Iterable[str], stack: Structure, whole: bool) -> None:
    """Of one element there is nothing to say."""
    if tf.nest.flatten(stack)[0].shape[0] != 1:
        for noted_names in _open:
            for name in names:
                noted_names[name] = whole or noted_names.get(name, False)
