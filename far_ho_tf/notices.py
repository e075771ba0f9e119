"""What a run is busy with before it yields anything: who waits wants to know."""

import contextlib

_listeners = []


@contextlib.contextmanager
def told_to(listener):
    """Within, `tell` calls a callable(text); `None`: nobody."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def tell(text):
    """Tells whoever listens what is done next."""
    if _listeners and _listeners[-1] is not None:
        _listeners[-1](text)


def once(listener):
    """A callable(text) that passes on what is not the text before."""
    before = None

    def listen(text):
        nonlocal before
        if text != before:
            before = text
            listener(text)

    return listen
