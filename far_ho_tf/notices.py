"""What a run is busy with before it yields anything: who waits wants to know."""

import contextvars
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeAlias, TypeVar

import keras

from far_ho_tf.checks import CALLER, users_frame
from far_ho_tf.contexts import having

_P = ParamSpec("_P")
_R = TypeVar("_R")
# What is called with each text.
Listener: TypeAlias = Callable[[str], None]

# A thread begins without: who starts one for a part of a run gives it `in_context`.
_LISTENER: contextvars.ContextVar[Listener | None] = contextvars.ContextVar(
    "listener", default=None
)


def told_to(listener: Listener | None) -> AbstractContextManager[None]:
    """Within, `tell` calls a callable(text); `None`: nobody."""
    return having(_LISTENER, listener)


def tell(text: str) -> None:
    """Tells whoever listens what is done next."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(text)


def in_context(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A callable that, in any thread, is heard by who listens in this one now.

    It warns at the line of the user's that led here.
    """
    listener, caller = _LISTENER.get(), users_frame()

    def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
        with told_to(listener), having(CALLER, caller):
            return function(*arguments, **options)

    return call


def once(listener: Listener) -> Listener:
    """A callable(text) that passes on what is not the text before."""
    before = None

    def listen(text: str) -> None:
        nonlocal before
        if text != before:
            before = text
            listener(text)

    return listen


def show(text: str, begin: str = "", end: str = "\n") -> None:
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


def listener_of_fit(given: Mapping[str, Any]) -> Listener | None:
    """Who is told what `fit` waits for: whoever sees Keras' bar, by its arguments."""
    return once(show) if given.get("verbose", "auto") in ("auto", 1) else None
