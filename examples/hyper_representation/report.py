"""Table, results.json and pictures of the representation."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from examples.common import pictures

_LABELS = {
    "pixels": "raw pixels, best rate",
    "initial": "the network before, best rate",
    "learned": "the learned representation",
}


def summarize(outcome: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds.

    Args:
        outcome: What `experiment.compare` returned.
        flags: Mapping.

    Returns:
        A mapping of plain numbers and lists.
    """
    return {
        **{name: outcome[name]._asdict() for name in _LABELS},
        "curve": outcome["curve"],
        "outer_value": outcome["outer_value"],
        "seconds": outcome["seconds"],
        "flags": flags,
    }


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    flags = results["flags"]
    row = "{:<34}{:>12}{:>12}{:>12}".format
    lines = [
        f"Held-out classes, {flags['ways']}-way, {flags['shots']}-shot, "
        f"T = {flags['num_steps']}; mean of {flags['test_episodes']} episodes:",
        row("linear classifier on", "accuracy", "std. error", "inner rate"),
    ]
    for name, label in _LABELS.items():
        found = results[name]
        numbers = (f"{found[key]:.2f}" for key in ("mean", "standard_error"))
        lines.append(row(label, *numbers, f"{found['learning_rate']:.3g}"))
    lines.append(
        f"Learned in {results['seconds']:.1f} s, the points of the curve included."
    )
    return "\n".join(lines)


def draw(
    outcome: dict[str, Any], results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws curve.png and episodes.png."""
    return [draw_curve(results, folder), draw_episodes(outcome, folder)]


def draw_curve(results: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """The loss of the queries, and the accuracy on held-out classes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.plot(results["outer_value"], linewidth=0.8)
    left.set_ylabel("loss of the queries, meta-training classes")
    right.plot(*zip(*results["curve"], strict=True), marker="o", label="learned")
    for name, style in (("initial", ":"), ("pixels", "--")):
        right.axhline(
            results[name]["mean"], color="gray", linestyle=style, label=_LABELS[name]
        )
    right.set_ylabel("accuracy on held-out classes, %")
    right.legend()
    for axis in (left, right):
        axis.set_xlabel("hyper-iteration")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return pictures.save(figure, folder / "curve.png")


def draw_episodes(
    outcome: dict[str, Any], folder: pathlib.Path, most: int = 10
) -> pathlib.Path:
    """Held-out episodes: what is learned from, and queries with their verdicts."""
    episodes, right = outcome["shown"]
    random = np.random.RandomState(0)
    columns = min(most, len(episodes[0].support[0]))
    others = min(most, len(episodes[0].query[0]))
    figure, axes = plt.subplots(
        len(episodes),
        columns + 1 + others,
        figsize=(0.7 * (columns + 1 + others), 0.75 * len(episodes) + 0.5),
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, episode, verdicts in zip(axes, episodes, right, strict=True):
        for axis, image in zip(row[:columns], episode.support[0], strict=False):
            _draw_image(axis, image, "silver")
        places = np.sort(random.choice(len(verdicts), others, replace=False))
        for axis, place in zip(row[columns + 1 :], places, strict=True):
            color = "tab:green" if verdicts[place] else "tab:red"
            _draw_image(axis, episode.query[0][place], color)
    figure.suptitle(
        "Held-out episodes: left the support set, right queries, "
        "green where classified rightly"
    )
    return pictures.save(figure, folder / "episodes.png")


def _draw_image(axis: Axes, image: np.ndarray, color: str) -> None:
    axis.imshow(np.reshape(image, (28, 28)), cmap="gray_r")
    axis.axis("on")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(linewidth=2, color=color)
