"""Lines of Python in errors and graphs: which of them is the user's."""

import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import keras
import tensorflow as tf

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_NOT_THE_USERS = (
    PACKAGE,
    *(os.path.join(os.path.dirname(module.__file__), "") for module in (tf, keras)),  # pyright: ignore[reportArgumentType, reportCallIssue]
    *(
        os.path.join(sysconfig.get_path(kind), "")
        for kind in ("stdlib", "purelib", "platlib")
    ),
    "<frozen",
)
# Of lines that AutoGraph wrote: file and line.
_origins: dict[tuple[str, int], tuple[str, int]] = {}


class Frame(NamedTuple):
    """A place in a program: a file, a line in it, and the function that it is in."""

    file: str
    line: int
    function: str


def where_now() -> str:
    """The user's line that is being run, as words that follow on others."""
    frames, now = [], sys._getframe(1)
    while now is not None:
        frames.append(Frame(now.f_code.co_filename, now.f_lineno, now.f_code.co_name))
        now = now.f_back
    return words(users_line(frames[::-1]))


def line_of(operation: tf.Operation) -> Frame | None:
    """The user's `Frame` in which an operation of a graph was made, or `None`."""
    return users_line(frames_of(operation))


def know_origins(converted: Callable[..., Any]) -> None:
    """Remembers where the lines of a function that AutoGraph wrote come from."""
    for place, origin in converted.ag_source_map.items():
        _origins[place.filename, place.lineno] = origin.loc.filename, origin.loc.lineno


def words(line: Frame | None) -> str:
    if line is None:
        return ""
    code = linecache.getline(line.file, line.line).strip()
    text = f" in line {line.line} of {line.file}"
    return f"{text} (`{code}`)" if code else text


def frame_of(call: TracebackType) -> Frame:
    code = call.tb_frame.f_code
    return Frame(code.co_filename, call.tb_lineno, code.co_name)


def frames_of(operation: tf.Operation) -> list[Frame]:
    called = operation.traceback or ()
    return [Frame(one.filename, one.lineno, one.name) for one in called]


def frames_in(text: str) -> list[Frame]:
    """Those that an error lists in words, as of what ran in a graph."""
    found = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', text)
    return [Frame(file, int(line), function) for file, line, function in found]


def users_line(frames: Sequence[Frame]) -> Frame | None:
    """The innermost frame of the user's, if the package led to it where it is there."""
    is_led = not any(one.file.startswith(PACKAGE) for one in frames)
    for place in range(len(frames) - 1, -1, -1):
        file, line = _origins.get(frames[place][:2], frames[place][:2])
        generated = os.path.basename(file).startswith("__autograph_generated")
        if not (generated or file.startswith(_NOT_THE_USERS)):
            is_led |= any(one.file.startswith(PACKAGE) for one in frames[:place])
            return frames[place]._replace(file=file, line=line) if is_led else None
    return None
