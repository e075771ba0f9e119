"""Table, results.json and pictures of the learned images."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from examples.common import pictures


def summarize(outcome: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds.

    Args:
        outcome: What `experiment.compare` returned.
        flags: Mapping.

    Returns:
        A mapping of plain numbers and lists.
    """
    real = outcome["real"]
    fields = real[0]._fields
    means = (float(np.mean(column)) for column in zip(*real, strict=True))
    return {
        "learned": outcome["learned"]._asdict(),
        "real_mean": dict(zip(fields, means, strict=True)),
        "real": [one._asdict() for one in real],
        "outer_value": outcome["outer_value"],
        "buffer_bits": outcome["bits"],
        "seconds": outcome["seconds"],
        "flags": flags,
    }


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    row = "{:<40}{:>12}{:>12}{:>11}".format
    lines = [row("trained on", "train loss", "test loss", "test acc.")]
    accuracies = [one["test_accuracy"] for one in results["real"]]
    for label, outcome in (
        (f"ten real images, mean of {len(accuracies)} draws", results["real_mean"]),
        ("ten learned images", results["learned"]),
    ):
        losses = (f"{outcome[key]:.4f}" for key in ("train_loss", "test_loss"))
        lines.append(row(label, *losses, f"{outcome['test_accuracy']:.2f}"))
    lines.append(
        f"The best draw of real images reaches {max(accuracies):.2f} %. Learned in "
        f"{results['seconds']:.1f} s, with {results['buffer_bits']:.2f} bits of buffer "
        "for each weight and step."
    )
    lines.append(
        "reported for the paper (off a plot, unverified): ten images, test loss 0.50"
    )
    return "\n".join(lines)


def draw(
    outcome: dict[str, Any], results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws images.png and curve.png."""
    return [draw_images(outcome, folder), draw_curve(results, folder)]


def draw_images(outcome: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Ten real images above the ten learned ones."""
    figure, axes = plt.subplots(2, 10, figsize=(11, 2.8), layout="constrained")
    learned = outcome["images"]
    limit = np.abs(learned).max()
    for digit in range(10):
        axes[0, digit].imshow(
            outcome["real_images"][digit].reshape(28, 28), cmap="gray"
        )
        image = axes[1, digit].imshow(
            learned[digit].reshape(28, 28), cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        axes[0, digit].set_title(digit)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, 0].set_ylabel("real")
    axes[1, 0].set_ylabel("learned")
    figure.colorbar(image, ax=axes[1], label="pixel")
    return pictures.save(figure, folder / "images.png")


def draw_curve(results: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """The loss of the real images against hyper-iterations."""
    figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    axis.plot(results["outer_value"], label="ten learned images")
    axis.axhline(
        results["real_mean"]["train_loss"],
        color="gray",
        linestyle="--",
        label="ten real images, mean",
    )
    axis.set_xlabel("hyper-iteration")
    axis.set_ylabel("loss of the real training images")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    return pictures.save(figure, folder / "curve.png")
