"""What a run is busy with before it yields anything: who waits wants to know."""

import contextlib
import sys
import threading

import keras


class _Listeners(threading.local):
    """Those of this thread."""

    def __init__(self):
        self.all = []


_LISTENERS = _Listeners()


@contextlib.contextmanager
def told_to(listener):
    """Within, `tell` calls a callable(text); `None`: nobody."""
    _LISTENERS.all.append(listener)
    try:
        yield
    finally:
        _LISTENERS.all.pop()


def tell(text):
    """Tells whoever listens what is done next."""
    listeners = _LISTENERS.all
    if listeners and listeners[-1] is not None:
        listeners[-1](text)


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
