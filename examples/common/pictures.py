"""How all examples save what they draw."""

import pathlib

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes the picture, and closes it; returns its path."""
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
