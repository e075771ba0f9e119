"""Files that a kill cannot damage: one for each hyper-iteration that is saved."""

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from far_ho_tf.checks import essence, require
from far_ho_tf.resuming.encoding import from_bytes, to_bytes

# The folders of workers, as `strategies.worker_name` names them.
_WORKER = re.compile(r"(worker|chief)-\d+")
# How checkpoints are called.
_SAVED = re.compile(r"ckpt-\d+")
# Files of `tf.train.CheckpointManager`, and in `rest` how those end, or begin, that it
# writes before they count.
_WRITTEN = re.compile(
    r"(?P<name>ckpt-\d+)(\.index|\.data-\d+-of-\d+)?"
    r"(?P<rest>_temp.*|(\.index|\.data-\d+-of-\d+)?\.tempstate.*)?"
    r"|checkpoint\.tmp[0-9a-f]+"
)
# What TensorFlow raises for files that are damaged, missing or of another kind.
_UNREADABLE = (
    *(AssertionError, ValueError, LookupError, RuntimeError),
    tf.errors.OpError,
)


class CheckpointError(ValueError):
    """A run cannot be gone on with: what was saved is damaged, or another run's."""


class Files:
    """A folder with the last few structures that were saved.

    By `tf.train.CheckpointManager`: one counts as saved once the file
    `checkpoint`, which is replaced as a whole, names it; TensorFlow checks its sum
    when it is read.

    Args:
        directory: Path of the folder, made at the first `write`.
        max_to_keep: Positive integer: older ones are removed.

    Raises:
        ValueError: If the directory is no path, or a file, or TensorFlow cannot read
            from it.
    """

    def __init__(self, directory: str | os.PathLike[str], max_to_keep: int) -> None:
        require(
            isinstance(directory, (str, os.PathLike)) and bool(os.fspath(directory)),
            "`directory` must be the path of a folder.",
            directory=directory,
        )
        self.directory = os.fspath(directory)
        require(
            not tf.io.gfile.exists(self.directory) or tf.io.gfile.isdir(self.directory),
            "`directory` must be a folder, or the path of a new one, but it is a file.",
            directory=self.directory,
        )
        require(
            not set(self.directory) & set("*?[]\\"),
            "`directory` must not hold *, ?, [, ] or a backslash, which TensorFlow "
            "takes for patterns.",
            directory=self.directory,
        )
        self.max_to_keep = max_to_keep
        self._last: str | None = None  # What was written here.
        self._record = os.path.join(self.directory, "checkpoint")
        self._refuse_foreign()
        self._content = _Content()
        checkpoint = tf.train.Checkpoint(far_ho_tf=self._content)
        try:
            self._manager = tf.train.CheckpointManager(
                checkpoint, self.directory, max_to_keep
            )
        except ValueError as error:
            raise ValueError(f"{self._unnamed()} Received: {error}") from error

    def _refuse_foreign(self) -> None:
        """Refuses a record that names other files than those of the folder.

        TensorFlow would read them, and remove them as the oldest.
        """
        try:
            record = tf.train.get_checkpoint_state(self.directory)
        except (ValueError, tf.errors.OpError):
            return  # What is damaged is told by whoever needs it.
        if record is None:
            return
        own = os.path.normpath(self.directory)
        foreign = [
            path
            for path in (
                *record.all_model_checkpoint_paths,
                record.model_checkpoint_path,
            )
            if os.path.dirname(os.path.normpath(path)) != own
            or not _SAVED.fullmatch(os.path.basename(path))
        ]
        require(
            not foreign,
            f"The file `{self._record}` must name checkpoints of its own folder alone. "
            "It was written by something else: begin anew in another directory.",
            found=foreign,
        )

    def clean(self) -> None:
        """Removes what writes that were killed have left."""
        if not tf.io.gfile.exists(self.directory):
            return
        kept = {os.path.basename(path) for path in self._manager.checkpoints}
        latest = self.latest()
        kept |= {os.path.basename(latest)} if latest else set()
        for name in tf.io.gfile.listdir(self.directory):
            found = _WRITTEN.fullmatch(name.rstrip("/"))
            if found and not (found["name"] in kept and not found["rest"]):
                path = os.path.join(self.directory, name)
                with contextlib.suppress(tf.errors.OpError):  # Of another process.
                    folder = tf.io.gfile.isdir(path)
                    (tf.io.gfile.rmtree if folder else tf.io.gfile.remove)(path)

    def latest(self) -> str | None:
        """The path of what was saved last, without its endings, or `None`.

        Raises:
            ValueError: If there is something, but not what was saved last.
        """
        named = self._manager.latest_checkpoint
        if named is not None:
            return named
        exists = tf.io.gfile.exists(self.directory)
        names = tf.io.gfile.listdir(self.directory) if exists else []
        found = [name for name in names if name.endswith(".index")]
        require(
            len(found) <= 1 and not tf.io.gfile.exists(self._record),
            self._unnamed(),
            found=sorted(found),
        )
        # A kill within the first `write` leaves one alone, complete or not.
        paths = [
            os.path.join(self.directory, name.removesuffix(".index")) for name in found
        ]
        return next(filter(_is_complete, paths), None)

    def folders(self) -> list[str]:
        """The names of the workers' folders in it."""
        exists = tf.io.gfile.exists(self.directory)
        names = tf.io.gfile.listdir(self.directory) if exists else []
        return sorted(
            name for name in (n.rstrip("/") for n in names) if _WORKER.fullmatch(name)
        )

    def within(self, name: str, max_to_keep: int) -> "Files":
        """The `Files` of a folder in this one."""
        return Files(os.path.join(self.directory, name), max_to_keep)

    def saved_as(self, number: int) -> str:
        """The path of what was saved under a number.

        Raises:
            ValueError: If it is not there any more.
        """
        found = {number_of(path): path for path in self._manager.checkpoints}
        require(
            number in found,
            f"`{self.directory}` must hold checkpoint {number}, the last that all "
            "workers have saved. Restore it, or begin anew in another directory.",
            found=sorted(found),
        )
        return found[number]

    def _unnamed(self) -> str:
        return (
            f"The file `{self._record}` must name the checkpoint that was saved last, "
            "but is missing or damaged. Restore it, or begin anew in another directory."
        )

    def read(self, path: str) -> dict[str, Any]:
        """The structure saved at a path of `latest`.

        Raises:
            ValueError: If it is damaged, or something else.
        """
        content = _Content()
        try:
            checkpoint = tf.train.Checkpoint(far_ho_tf=content)
            status = checkpoint.read(path).expect_partial()  # TensorFlow's counter.
            status.assert_existing_objects_matched()
            return from_bytes(content.data)
        except _UNREADABLE as error:
            raise ValueError(
                f"`{path}` must be a checkpoint that `far.Checkpoint` saved. Received "
                f"files that are damaged, or of another kind: {essence(error)}. Remove "
                "or restore them, or begin anew in another directory."
            ) from error

    def write(self, content: dict[str, Any], number: int) -> None:
        """Saves a structure under a number, and then removes the oldest.

        Raises:
            OSError: If it cannot be written. What was saved before stays.
        """
        self._content.data = to_bytes(content)
        self._writing(lambda: self._manager.save(checkpoint_number=number))
        self._last = self._manager.latest_checkpoint
        self._content.data = b""

    def check_last(self) -> None:
        """Refuses a folder into which another process has written meanwhile."""
        found = tf.train.latest_checkpoint(self.directory)
        require(
            self._last in (None, found),
            f"`{self.directory}` has been written to by another run since. Begin anew "
            "in another directory.",
            saved_here=self._last,
            found=found,
        )

    def check_writable(self) -> None:
        """Says so now if the folder cannot be written to.

        Raises:
            OSError: If it cannot.
        """
        probe = os.path.join(self.directory, f"writable-{uuid.uuid4().hex}")

        def attempt() -> None:
            tf.io.gfile.makedirs(self.directory)
            with tf.io.gfile.GFile(probe, "w") as file:
                file.write("It is.")
            tf.io.gfile.remove(probe)

        self._writing(attempt)

    def _writing(self, attempt: Callable[[], Any]) -> None:
        try:
            attempt()
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"far.Checkpoint cannot write to `{self.directory}` (is the disk full, "
                f"is the folder writable?): {essence(error)}"
            ) from error


def number_of(path: str) -> int:
    """The number that a path of `Files` ends with."""
    return int(path.rpartition("-")[2])


def _is_complete(path: str) -> bool:
    """Whether the index, which is written last, is whole."""
    try:
        tf.train.load_checkpoint(path)
    except _UNREADABLE:
        return False
    return True


class _Content(tf.train.experimental.PythonState):
    """Bytes as a part of a `tf.train.Checkpoint`."""

    data = b""

    def serialize(self) -> bytes:
        return self.data

    def deserialize(self, string_value: bytes) -> None:
        self.data = string_value
