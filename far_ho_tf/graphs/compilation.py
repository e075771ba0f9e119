"""What XLA has compiled, kept for other processes."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import tempfile
import uuid

import tensorflow as tf

from far_ho_tf.checks import essence, require, warn_user

# A folder for all processes that have it in their environment.
VARIABLE = "FAR_HO_TF_COMPILE_CACHE"
_FLAGS = "TF_XLA_FLAGS"
_DIRECTORY = "--tf_xla_persistent_cache_directory"
_DEVICES = "--tf_xla_persistent_cache_device_types"
_ENTRIES = "xla_compile_cache__*"

_used: list[pathlib.Path] = []  # The folder in use, once there is one.
# The same, until it is known whether TensorFlow uses it.
_to_check: list[pathlib.Path] = []


def compile_cache(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Keeps what XLA compiles on the CPU in a folder, where other processes find it.

    The first hypergradient of a process then takes a third to a half of the time, if
    another process has computed one of the same model, shapes, dynamics and mode.
    Results are the same, bit for bit. The environment variable
    `FAR_HO_TF_COMPILE_CACHE` does the same for a process, as far_ho_tf is imported.

    It is for the whole process, and must be called before TensorFlow makes its first
    tensor: before any model, layer, variable or `tf.constant`. A warning says so where
    it was not. A program that runs by `absl.app.run` imports far_ho_tf before that, as
    TensorFlow reads its flags sooner there; so do the examples. It takes the place of
    a cache that `TF_XLA_FLAGS` names. A folder within the given one is used, of this
    version of TensorFlow, this kind of processor, number of cores and set of XLA's
    flags: what is compiled for one need not be right for another. Nothing is ever
    deleted there, but what cannot be read; delete it as you like. It holds machine code
    that is run as it is: take a folder that only you can write to. As XLA takes from
    it, it writes lines to the log that alarm: an "error parsing text-format", as it
    tries another format first, and on some processors that "prefer-no-scatter" and
    "prefer-no-gather", preferences that it has set itself, are no features of the
    machine. Neither is a fault; TF_CPP_MIN_LOG_LEVEL=3 keeps them away.

    Args:
        directory: String or path, without spaces, as TensorFlow cannot read them; made
            where it is missing.

    Returns:
        `pathlib.Path`, the folder that is used.

    Raises:
        ValueError: If it is no path, or the process has another cache already.
        OSError: If it cannot be made, or nothing can be written there.

    Example:

    >>> import far_ho_tf as far, tempfile
    >>> folder = far.compile_cache(tempfile.mkdtemp())
    >>> folder.is_dir()
    True
    """
    require(
        isinstance(directory, (str, os.PathLike)) and os.fspath(directory),
        "`directory` must be a path, as a string or a pathlib.Path.",
        directory=directory,
    )
    folder = pathlib.Path(os.path.abspath(os.path.expanduser(directory))) / _kind()
    require(
        _used in ([], [folder]),
        f"A process has one compile cache, and this one has another already (by "
        f"`far.compile_cache`, or by {VARIABLE} as far_ho_tf was imported).",
        directory=directory,
        in_use=[str(other) for other in _used],
    )
    if _used:
        return folder
    require(
        not re.search(r"\s", str(folder)),
        "TensorFlow takes no compile cache with a space in its path.",
        directory=directory,
    )
    require(
        "://" not in str(directory),
        "`directory` must be a folder of this machine.",
        directory=directory,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder):  # As TensorFlow must be able to.
            pass
    except OSError as error:
        raise OSError(
            "`directory` must be a folder that can be made and written to. Received: "
            f"{directory!r} ({error})"
        ) from error
    flags = [*_other_flags(), f"{_DIRECTORY}={folder}", f"{_DEVICES}=CPU"]
    os.environ[_FLAGS] = " ".join(flags)
    _used.append(folder)
    _to_check.append(folder)
    return folder


def from_environment() -> None:
    """`compile_cache` by the environment variable, where it is set.

    Warns where that fails: who imports far_ho_tf may not know of the variable.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        return
    try:
        compile_cache(directory)
    except (ValueError, OSError, RuntimeError) as error:
        warn_user(
            f"Nothing is kept of what XLA compiles: {VARIABLE}={directory!r} names no "
            f"folder for it. {error}"
        )


def check_in_use() -> None:
    """Warns where TensorFlow does not use the compile cache; asks once.

    It reads its flags once, with its first tensor.
    """
    if not _to_check:
        return
    folder = _to_check.pop()
    name = f"far_ho_tf_asks_{uuid.uuid4().hex}"
    before = set(folder.glob(_ENTRIES))

    def ask(value: tf.Tensor) -> tf.Tensor:
        return value + 1

    ask.__name__ = name
    failure = ""
    try:
        tf.function(ask, autograph=False, jit_compile=True)(tf.constant(1))
    except tf.errors.OpError as error:  # As of a disk that is full.
        failure = f" {essence(error)}"
    entries = [path for path in folder.glob(_ENTRIES) if path not in before]
    own = [path for path in entries if name.encode() in _bytes(path)]
    for path in own:
        path.unlink(missing_ok=True)
    if not own:
        warn_user(
            f"The compile cache in {folder} is not used: nothing can be written there, "
            "or TensorFlow had made tensors before it was told of it. Remedy: call "
            f"`far.compile_cache` first, or set {VARIABLE} before the process starts."
            f"{failure}"
        )


def discard_unreadable(error: BaseException) -> bool:
    """Whether an error may come from the compile cache, which is then emptied."""
    kinds = tf.errors.DataLossError, tf.errors.OutOfRangeError
    damaged = isinstance(error, kinds) or "CpuAotCompilationResult" in str(error)
    if not _used or not damaged:
        return False
    for path in _used[0].glob(_ENTRIES):
        with contextlib.suppress(OSError):
            path.unlink()
    return True


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # Another process has taken its own away.
        return b""


def _kind() -> str:
    """A name for folders of processes that can share what they compile."""
    facts = (
        *(tf.version.GIT_VERSION, platform.machine(), _processor(), _cores()),
        *(os.environ.get("XLA_FLAGS", ""), _other_flags()),
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return f"tensorflow-{tf.__version__}-{digest}"


def _other_flags() -> list[str]:
    """TensorFlow's flags for XLA, without those of a cache: a parent process' too."""
    flags = os.environ.get(_FLAGS, "").split()
    return [flag for flag in flags if not flag.startswith((_DIRECTORY, _DEVICES))]


def _cores() -> int | None:
    """How many this process may use: XLA divides work among them as it compiles."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()  # Not on Linux.


def _processor() -> str | list[str]:
    """What tells which instructions there are."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Not on Linux.
        return platform.processor()
    keys = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in lines if line.startswith(keys)})
