"""Functions of TensorFlow and Keras, replaced: for good, or for the time of a block.

`replacements` tells of which.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeAlias

# A module, and the name of a function in it.
Place: TypeAlias = tuple[ModuleType, str]

_places: dict[str, str] = {}  # From names to "always" or "traces".


def replace(module: ModuleType, name: str, new: Callable[..., Any]) -> None:
    """Puts a function in the place of a module's, for the whole process."""
    _note(module, name, "always")
    setattr(module, name, new)


@contextlib.contextmanager
def replaced(
    functions: Mapping[Place, Callable[..., Any]],
    own: Mapping[Place, Callable[..., Any]] | None = None,
) -> Iterator[None]:
    """Within, functions stand in the place of modules' own.

    For the whole process, so that no other thread should do so meanwhile: who traces
    holds `graphs.functions.TRACING`.

    Args:
        functions: Mapping from places to functions.
        own: What stands there afterwards; by default what did before. Given where
            threads may be within at once: of two, the one that came second would put
            back what the first had put there.
    """
    before = {place: getattr(*place) for place in functions} if own is None else own
    try:
        for place, new in functions.items():
            _note(*place, "traces")
            setattr(*place, new)
        yield
    finally:
        for place, function in before.items():
            setattr(*place, function)


def replacements() -> dict[str, str]:
    """What was replaced so far in this process: names, and "always" or "traces"."""
    return dict(sorted(_places.items()))


def _note(module: ModuleType, name: str, when: str) -> None:
    _places.setdefault(f"{module.__name__}.{name}", when)
