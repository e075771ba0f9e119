"""One process at a time in a folder."""

import contextlib
import os
import socket
from typing import IO

from far_ho_tf.checks import require

try:
    import fcntl
except ImportError:  # On Windows, where nothing is locked.
    fcntl = None

# By their paths: a process may take what it holds itself.
_held: dict[str, IO[str]] = {}


def lock(directory: str) -> None:
    """Keeps other processes out of a folder, until `unlock` or the end of this one.

    By a lock of the operating system on the file `lock`, which a process that is killed
    loses. In folders that are not of a file system, such as "gs://...", nothing is
    locked.

    Raises:
        ValueError: If another process has it.
    """
    if fcntl is None or "://" in directory or _path_of(directory) in _held:
        return
    path = _path_of(directory)
    file = open(  # noqa: SIM115, held until `unlock`.
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+"
    )
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read()
        file.close()
        require(
            False,
            f"`{directory}` is in use by another run: one process at a time may save "
            "there. Wait for it, stop it, or give this run another directory.",
            held_by=holder.strip(),
        )
    except OSError:  # A file system without locks.
        file.close()
        return
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file


def unlock(directory: str) -> None:
    """Lets other processes into a folder again."""
    file = _held.pop(_path_of(directory), None)
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()


def _path_of(directory: str) -> str:
    return os.path.join(os.path.realpath(directory), "lock")
