"""How long buffers are whose use is not known when they are compiled; free memory."""

import pathlib

from far_ho_tf.checks import LAST_STEP

# Bytes up to which a buffer may be twice as long as what is put there.
_SMALL = 2**26


def capacity(count: int, size: int = 0) -> int:
    """The next size up, so that few programs serve any number of steps.

    Args:
        count: Positive integer, what is to be held.
        size: Integer, the bytes of each.

    Returns:
        The smallest power of two that is not below the count, 8 at least; where that
        would be more than 64 MB, the next of sixteen sizes on the way there. XLA fills
        a buffer with zeros before each run, which takes a tenth of a large run's time
        where half of it is not used.

    Example:

    >>> [capacity(count) for count in (1, 8, 20, 1024)]
    [8, 8, 32, 1024]
    >>> [capacity(count, size=10**7) for count in (20, 33, 1024)]
    [20, 34, 1024]
    """
    power = min(max(8, 1 << (count - 1).bit_length()), LAST_STEP)
    if power * size <= _SMALL:
        return power
    part = max(1, power // 32)
    return -(-count // part) * part


def free_memory() -> int | None:
    """Bytes that can be had without swapping, by Linux' own estimate; else `None`."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(line.split()[1])


def text_of_bytes(size: float) -> str:
    """A number of bytes as messages and tables name it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
