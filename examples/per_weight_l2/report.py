"""Table, results.json and pictures of the penalties."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from examples.common import pictures

LABELS = {
    "none": "no penalty",
    "global": "best global penalty",
    "both": "  the same, trained on both sets",
    "per_weight": "a penalty per weight",
}
# Maclaurin et al. 2015, section 3.2, as read off a plot: not checked.
REPORTED = (("before", 0.76, 0.71), ("after", 0.43, 0.45))


def table(results: dict[str, Any]) -> str:
    """The means over the seeds as text."""
    row = "{:<36}{:>12}{:>12}{:>11}{:>11}".format
    lines = [row("", "train loss", "valid. loss", "test loss", "test acc.")]
    for name, label in LABELS.items():
        mean = results["mean"][name]
        losses = (f"{mean[key]:.4f}" for key in ("train", "validation", "test"))
        lines.append(row(label, *losses, f"{mean['test_accuracy']:.2f}"))
    lines.append("reported for the paper (10,000 images, off a plot, unverified):")
    for label, validation, test in REPORTED:
        lines.append(row("  " + label, "-", f"{validation:.2f}", f"{test:.2f}", "-"))
    lines.append(f"Learned in {results['seconds']:.1f} s for each seed.")
    return "\n".join(lines)


def summarize(outcomes: list[dict[str, Any]], flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds.

    Args:
        outcomes: What `experiment.compare` returned.
        flags: Mapping.

    Returns:
        A mapping of plain numbers and lists.
    """
    mean = {}
    for name in LABELS:
        rows = [outcome["losses"][name] for outcome in outcomes]
        columns = zip(*rows, strict=True)
        mean[name] = dict(
            zip(rows[0]._fields, (float(np.mean(c)) for c in columns), strict=True)
        )
    return {
        "mean": mean,
        "seconds": float(np.mean([outcome["seconds"] for outcome in outcomes])),
        "seeds": [_plain(outcome) for outcome in outcomes],
        "flags": flags,
    }


def _plain(outcome: dict[str, Any]) -> dict[str, Any]:
    losses = {name: one._asdict() for name, one in outcome["losses"].items()}
    kept = ("best_global", "outer_value", "seconds")
    return {"losses": losses, **{name: outcome[name] for name in kept}}


def draw(
    outcomes: list[dict[str, Any]], results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws penalties.png and curves.png."""
    return [draw_maps(outcomes[0]["maps"], folder), draw_curves(outcomes, folder)]


def draw_maps(maps: np.ndarray, folder: pathlib.Path) -> pathlib.Path:
    """The logarithm of each pixel's penalty, for each of the ten digits."""
    figure, axes = plt.subplots(2, 5, figsize=(11, 5), layout="constrained")
    low, high = np.quantile(maps, [0.01, 0.99])
    for digit, axis in enumerate(axes.flat):
        image = axis.imshow(maps[digit], cmap="viridis", vmin=low, vmax=high)
        axis.set_title(digit)
        axis.axis("off")
    figure.colorbar(image, ax=axes, label="log penalty", extend="both")
    figure.suptitle("Learned penalties of the weights from each pixel to each digit")
    return pictures.save(figure, folder / "penalties.png")


def draw_curves(outcomes: list[dict[str, Any]], folder: pathlib.Path) -> pathlib.Path:
    """The validation loss of each seed against hyper-iterations."""
    figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for seed, outcome in enumerate(outcomes):
        label = None if seed else "a penalty per weight"
        axis.plot(outcome["outer_value"], color="tab:red", alpha=0.8, label=label)
        best = outcome["losses"]["global"].validation
        label = None if seed else "best global penalty"
        ends = [0, len(outcome["outer_value"]) - 1]
        axis.plot(ends, [best, best], color="tab:blue", alpha=0.8, label=label)
    axis.set(xlabel="hyper-iteration", ylabel="validation loss after the last step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    axis.grid(alpha=0.3)
    return pictures.save(figure, folder / "curves.png")
