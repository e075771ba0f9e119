"""Table, results.json and pictures of data hyper-cleaning."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from examples.common import pictures
from examples.data_hyper_cleaning.experiment import Outcome, score

# Franceschi et al. 2017, table 1, as remembered: not checked against the text.
REPORTED = (
    ("baseline", 87.74, None),
    ("oracle", 90.46, None),
    ("ours, R=1000", 90.07, 0.9137),
    ("ours, R=1500", 90.06, 0.9244),
    ("ours, R=2000", 90.00, 0.9211),
    ("ours, R=2500", 90.09, 0.9217),
)


def summarize(outcome: Outcome, flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds."""
    results = {
        name: {"test_accuracy": accuracy}
        for name, accuracy in outcome.accuracies.items()
    }
    results["ours"] |= score(outcome.cleaned["weights"], outcome.wrong)
    kept = {name: outcome.cleaned[name] for name in ("seconds", "history")}
    return {**results, **kept, "flags": flags}


def table(results: dict[str, Any]) -> str:
    """The results as text, beside the figures reported for the paper."""
    row = "{:<28}{:>10}{:>11}{:>9}{:>9}{:>10}".format
    lines = [row("", "test acc.", "precision", "recall", "F1", "seconds")]
    for name, label in (
        ("baseline", "baseline (all data)"),
        ("oracle", "oracle (clean data only)"),
    ):
        lines.append(row(label, f"{results[name]['test_accuracy']:.2f}", *"----"))
    ours = results["ours"]
    fractions = (f"{ours[name]:.4f}" for name in ("precision", "recall", "f1"))
    lines.append(
        row(
            "ours",
            f"{ours['test_accuracy']:.2f}",
            *fractions,
            f"{results['seconds']:.1f}",
        )
    )
    lines.append("reported for the paper (unverified):")
    for label, accuracy, f1 in REPORTED:
        shown = "-" if f1 is None else f"{f1:.4f}"
        lines.append(row("  " + label, f"{accuracy:.2f}", "-", "-", shown, "-"))
    return "\n".join(lines)


def draw(
    outcome: Outcome, results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws images.png and curves.png."""
    return [
        draw_images(outcome, folder),
        draw_curves(results["history"], int(outcome.wrong.sum()), folder),
    ]


def draw_images(
    outcome: Outcome, folder: pathlib.Path, columns: int = 12
) -> pathlib.Path:
    """Draws the most and the least trusted images, with given and true label."""
    rows = 2
    images, given, true = outcome.images, outcome.given, outcome.true
    cleaned = outcome.cleaned
    most, least = extremes(cleaned["weights"], cleaned["hypergradient"], rows * columns)
    blocks = [
        ("Most trusted: largest weights", most),
        ("Least trusted: smallest weights", least),
    ]
    figure = plt.figure(figsize=(columns * 0.85, 5.8), layout="constrained")
    for block, (title, chosen) in zip(figure.subfigures(2), blocks, strict=True):
        wrong = np.mean(given[chosen] != true[chosen])
        block.suptitle(
            f"{title} (given labels above; {wrong:.0%} are wrong, in red)",
            fontsize=11,
        )
        axes = block.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, index in zip(axes.flat, chosen, strict=False):
            axis.imshow(images[index].reshape(28, 28), cmap="gray_r")
            right = given[index] == true[index]
            label = f"{given[index]}" if right else f"{given[index]}, is {true[index]}"
            axis.set_title(label, fontsize=9, color="tab:green" if right else "tab:red")
    return pictures.save(figure, folder / "images.png")


def extremes(
    weights: np.ndarray, hypergradient: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the most and of the least trusted images.

    Among the images of weight zero, those whose weight the validation loss
    would most like to be negative (largest hypergradient) are least trusted.
    """
    order = np.lexsort((-hypergradient, weights))
    return order[::-1][:count], order[:count]


def draw_curves(
    history: dict[str, list[float]], num_wrong: int, folder: pathlib.Path
) -> pathlib.Path:
    """Outer value, F1 and number of flags against hyper-iterations."""
    figure, axes = plt.subplots(3, sharex=True, figsize=(6, 7), layout="constrained")
    iterations = np.arange(len(history["f1"]))
    panels = (
        ("outer_value", "validation loss"),
        ("f1", "F1 of the flags"),
        ("flagged", "flagged images"),
    )
    for axis, (name, label) in zip(axes, panels, strict=True):
        axis.plot(iterations, history[name], marker=".")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    if len(history["f1"]) > 2:  # At first all weights are equal and F1 is zero.
        axes[1].set_ylim(bottom=min(history["f1"][2:]) - 0.02)
    axes[2].axhline(num_wrong, color="gray", linestyle="--", label="wrong labels")
    axes[2].legend()
    axes[2].set_xlabel("hyper-iterations made")
    return pictures.save(figure, folder / "curves.png")
