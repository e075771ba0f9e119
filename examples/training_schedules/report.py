"""Table, results.json and pictures of the learned schedules."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from examples.common import pictures
from examples.training_schedules.experiment import Outcome

LABELS = {
    "start": "the start",
    "constant": "best constant learning rate",
    "learned": "learned schedules and scales",
}
COLORS = {"start": "gray", "constant": "tab:blue", "learned": "tab:red"}
# Maclaurin et al. 2015, section 3.1, as read off a plot: not checked.
REPORTED = (("the start", 0.53, 0.59), ("learned", 0.12, 0.24))


def table(results: dict[str, Any]) -> str:
    """The mean losses after the last step as text."""
    row = "{:<32}{:>12}{:>11}{:>11}{:>16}".format
    lines = [row("", "train loss", "test loss", "test acc.", "learning rate")]
    rates = {
        "start": f"{results['flags']['start_learning_rate']:.2f}",
        "constant": f"{results['best_constant_rate']:.2f}",
        "learned": "per step, layer",
    }
    for name, label in LABELS.items():
        mean = results["mean"][name]
        lines.append(
            row(
                label,
                f"{mean['train_loss']:.4f}",
                f"{mean['test_loss']:.4f}",
                f"{mean['test_accuracy']:.2f}",
                rates[name],
            )
        )
    lines.append("reported for the paper (read off a plot, unverified):")
    for label, train, test in REPORTED:
        lines.append(row("  " + label, f"{train:.2f}", f"{test:.2f}", "-", "-"))
    lines.append(
        f"Learned in {results['seconds']:.1f} s; the training loss is "
        f"{results['ratio']:.2f} times that of the best constant rate."
    )
    return "\n".join(lines)


def summarize(
    outcome: tuple[dict[str, Outcome], dict[str, Any]], flags: dict[str, Any]
) -> dict[str, Any]:
    """What results.json holds.

    Args:
        outcome: What `experiment.compare` returned.
        flags: Mapping.

    Returns:
        A mapping of plain numbers and lists.
    """
    outcomes, details = outcome
    numbers = ("train_loss", "test_loss", "test_accuracy")
    mean = {
        name: {number: float(np.mean(getattr(one, number))) for number in numbers}
        for name, one in outcomes.items()
    }
    return {
        "mean": mean,
        "ratio": mean["learned"]["train_loss"] / mean["constant"]["train_loss"],
        "best_constant_rate": min(details["grid"], key=lambda pair: pair[1])[0],
        **details,
        "draws": {name: one._asdict() for name, one in outcomes.items()},
        "flags": flags,
    }


def draw(
    outcome: tuple[dict[str, Outcome], dict[str, Any]],
    results: dict[str, Any],
    folder: pathlib.Path,
) -> list[pathlib.Path]:
    """Draws schedules.png and curves.png."""
    return [draw_schedules(results, folder), draw_curves(results, folder)]


def draw_schedules(results: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """What was learned: rates and momenta against the step, and scales."""
    names, flags = results["names"], results["flags"]
    starts = [flags[f"start_{name}"] for name in ("learning_rate", "momentum", "scale")]
    figure, axes = plt.subplots(2, 3, figsize=(14, 7), layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, (len(names) + 1) // 2))
    # A layer has two variables, kernel and bias: a row of panels for each.
    for kind, (rates, momenta, scales) in enumerate(axes):
        shown = range(kind, len(names), 2)
        for axis, key in ((rates, "learning_rates"), (momenta, "momenta")):
            for color, index in zip(colors, shown, strict=True):
                values = np.asarray(results["schedules"][key])[:, index]
                axis.plot(values, color=color, label=names[index])
            axis.set_xlabel("step")
        rates.legend(fontsize=8)
        rates.set(ylabel="learning rate α", yscale="log")
        momenta.set(ylabel="momentum γ")
        labels = [names[index].split("/")[0] for index in shown]
        values = [results["schedules"]["scales"][index] for index in shown]
        scales.bar(labels, values, color=colors)
        scales.set(ylabel="scale of the initial values")
        for axis, start in zip((rates, momenta, scales), starts, strict=True):
            axis.axhline(start, color="gray", linestyle="--")
            axis.grid(alpha=0.3)
    figure.suptitle("Learned schedules and scales (dashed: the start)")
    return pictures.save(figure, folder / "schedules.png")


def draw_curves(results: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Learning curves before and after, and the path of the outer objective."""
    figure, (curves, path) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name, label in LABELS.items():
        curves.plot(results["draws"][name]["curve"], color=COLORS[name], label=label)
    curves.set(
        xlabel="step",
        ylabel="loss on the step's minibatch",
        yscale="log",
        title="Learning curves (mean over the initial weights)",
    )
    path.plot(results["history"]["outer_value"], color=COLORS["learned"], marker=".")
    constant = results["mean"]["constant"]["train_loss"]
    path.axhline(constant, color=COLORS["constant"], label=LABELS["constant"])
    path.axhline(
        constant / 2, color=COLORS["constant"], linestyle="--", label="½ of it"
    )
    path.set(
        xlabel="hyper-iteration",
        ylabel="training loss after the last step",
        yscale="log",
        title="What is descended on",
    )
    for axis in (curves, path):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3, which="both")
    return pictures.save(figure, folder / "curves.png")
