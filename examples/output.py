"""What all examples write: results.json and pictures, to one folder."""

import json
import pathlib


def prepare(folder):
    """Makes the folder, and finds out at once whether it can be written to.

    Raises:
        ValueError, OSError: If not.
    """
    if not folder:
        raise ValueError("it is empty")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").touch()
    return folder


def save(results, folder):
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return path


def save_figure(figure, path):
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
