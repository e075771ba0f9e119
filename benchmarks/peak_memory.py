"""The peak of a process's memory; for Linux with glibc."""

import ctypes
import gc
import pathlib

# For the environment of a process that is measured: large tensors get pages of their
# own, which are given back when they are freed. That takes time.
FREEING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def growth(call):
    """Bytes by which a call lets the peak of the process grow."""
    before = held()
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    call()
    return _status("VmHWM") - before


def held():
    """Bytes that the process holds when all that can be is given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def resident():
    """Bytes that the process holds as it is."""
    return _status("VmRSS")


def _status(field):
    """A field of Linux' account of this process, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise ValueError(f"No {field} here.")
