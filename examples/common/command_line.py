"""What the command lines of all examples share: their flags, and errors in one line."""

import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import app, flags, logging

from examples.common import output

FLAGS = flags.FLAGS

# Errors only: TensorFlow notes what it does, more so with several devices, and warns of
# costs that its optimizer cannot estimate.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def run(main: Callable[[list[str]], None]) -> None:
    """`app.run`, quietly; divergence, bad checkpoints, full disks end in one line."""

    def guarded(argv: list[str]) -> None:
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            main(argv)
        except Exception as error:
            own = type(error).__module__.startswith("far_ho_tf")
            if not own and not isinstance(error, OSError):  # Such as a full disk.
                raise
            sys.exit(f"{_script(argv)}: {error}")

    _use_compile_cache()
    app.run(guarded)


def _use_compile_cache() -> None:
    """Imports far_ho_tf where it is to use one: within `app.run` it is too late."""
    asks = any(argument.startswith("--help") for argument in sys.argv[1:])
    if os.environ.get("FAR_HO_TF_COMPILE_CACHE") and not asks:
        import far_ho_tf  # noqa: F401


def _script(argv: list[str]) -> str:
    """The name of the program in messages, such as per_weight_l2/run.py."""
    return "/".join(pathlib.Path(argv[0]).resolve().parts[-2:])


def begin(argv: list[str], load: Callable[[], Any]) -> tuple[Any, pathlib.Path]:
    """Loads the data and prepares --output_dir.

    Where that fails the program ends, with one line that says why.

    Args:
        argv: What the flags left of the command line.
        load: Gives the data.

    Returns:
        A pair: the data, and the folder to write to.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    try:
        _check_finite()
        data = load()
    except (ValueError, OSError) as error:
        sys.exit(f"{_script(argv)}: {error}")
    try:
        return data, output.prepare(FLAGS.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"{_script(argv)}: --output_dir cannot be written to: {error}")


def _check_finite() -> None:
    """Raises a `ValueError` for NaN and infinity, which no bound of absl's sees."""
    for name, value in values().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} must be finite. Received: --{name} {value}")


def check_batch_size(num_examples: int) -> None:
    """Raises a `ValueError` if --batch_size exceeds the number of examples."""
    if FLAGS.batch_size > num_examples:
        raise ValueError(
            f"--batch_size must not exceed the training examples, {num_examples}. "
            f"Received: --batch_size {FLAGS.batch_size}"
        )


def values() -> dict[str, Any]:
    """The flags that --help shows, by name."""
    own = FLAGS.get_key_flags_for_module(sys.argv[0])
    return {flag.name: flag.value for flag in own}


def settings(kind: type[NamedTuple]) -> Any:
    """A `NamedTuple` of the kind, each field the flag of its name."""
    return kind._make(FLAGS[name].value for name in kind._fields)
