"""What a run is busy with before it yields anything: who waits wants to know."""

import contextvars
import sys

import keras

from far_ho_tf.contexts import having

# A thread begins without: who starts one for a part of a run gives it `in_context`.
_LISTENER = contextvars.ContextVar("listener", default=None)


def told_to(listener):
    """Within, `tell` calls a callable(text); `None`: nobody."""
    return having(_LISTENER, listener)


def tell(text):
    """Tells whoever listens what is done next."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(text)


def in_context(function):
    """A callable that, in any thread, is heard by who listens in this one now."""
    listener = _LISTENER.get()

    def call(*arguments, **options):
        with told_to(listener):
            return function(*arguments, **options)

    return call


def once(listener):
    """A callable(text) that passes on what is not the text before."""
    before = None

    def listen(text):
        nonlocal before
        if text != before:
            before = text
            listener(text)

    return listen


def show(text, begin="", end="\n"):
    """Prints where Keras' bars are seen, in what the output can encode.

    Args:
        text: String.
        begin, end: What is printed before and behind.
    """
    if not keras.config.is_interactive_logging_enabled():
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("…", "...").encode(encoding, "replace").decode(encoding)
    print(f"{begin}{text}", end=end, flush=True)
