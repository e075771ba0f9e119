"""What all examples write to --output_dir: results.json."""

import json
import pathlib
from typing import Any


def prepare(folder: str) -> pathlib.Path:
    """Makes the folder, and finds out at once whether it can be written to.

    Raises:
        ValueError, OSError: If not.
    """
    if not folder:
        raise ValueError("it is empty")
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").touch()
    return path


def save(results: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes results.json to the folder; returns its path."""
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return path
