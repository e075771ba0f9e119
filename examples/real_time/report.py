"""Table, results.json and picture of real-time tuning."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from examples.common import pictures
from examples.real_time.experiment import Comparison, Outcome, Values

LABELS = {
    "rtho": "RTHO, from the poor start",
    "grid": "grid search",
    "random": "random search, RTHO's time",
    "defaults": "fixed: Keras' defaults",
    "start": "fixed: the poor start",
}
COLORS = {
    "rtho": "tab:red",
    "grid": "tab:blue",
    "random": "tab:green",
    "defaults": "gray",
    "start": "black",
}


def table(results: dict[str, Any]) -> str:
    """The means over the seeds as text."""
    row = "{:<28}{:>11}{:>11}{:>9}{:>7}{:>12}{:>10}{:>10}".format
    head = (
        "test acc.",
        "val. acc.",
        "seconds",
        "runs",
        "learn. rate",
        "momentum",
        "L2",
    )
    lines = [row("", *head)]
    for method, label in LABELS.items():
        mean = results["mean"][method]
        values = mean["values"]
        lines.append(
            row(
                label,
                f"{mean['accuracy']:.2f}",
                f"{mean['validation']:.2f}",
                f"{mean['seconds']:.1f}",
                f"{mean['runs']:.0f}",
                f"{values['learning_rate']:.2g}",
                f"{values['momentum']:.2f}",
                f"{values['l2']:.1e}",
            )
        )
    lines.append(
        f"RTHO took {results['ratio']:.2f} times as long as one plain run, and ends "
        f"{abs(results['gap']):.2f} points "
        f"{'below' if results['gap'] >= 0 else 'above'} the grid's best."
    )
    return "\n".join(lines)


def summarize(comparison: Comparison, flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds.

    Args:
        comparison: What `experiment.compare` returned.
        flags: Mapping.

    Returns:
        A mapping of plain numbers and lists.
    """
    outcomes, seconds_of_keras = comparison
    mean = {
        method: _mean([outcome[method] for outcome in outcomes]) for method in LABELS
    }
    ours = mean["grid"]["seconds"] / mean["grid"]["runs"]
    seeds = [
        {method: _plain(outcome) for method, outcome in one.items()} for one in outcomes
    ]
    return {
        "mean": mean,
        # To the faster of the two ways to make one plain run.
        "ratio": mean["rtho"]["seconds"] / min(ours, seconds_of_keras),
        "gap": mean["grid"]["accuracy"] - mean["rtho"]["accuracy"],
        "seconds_of_one_plain_run": {"ours": ours, "keras": seconds_of_keras},
        "seeds": seeds,
        "flags": flags,
    }


def _mean(outcomes: list[Outcome]) -> dict[str, Any]:
    numbers = ("accuracy", "validation", "seconds", "runs")
    return {
        **{
            name: float(np.mean([getattr(o, name) for o in outcomes]))
            for name in numbers
        },
        # Rates and penalties lie on a logarithmic scale.
        "values": {
            "learning_rate": _geometric([o.values.learning_rate for o in outcomes]),
            "momentum": float(np.mean([o.values.momentum for o in outcomes])),
            "l2": _geometric([o.values.l2 for o in outcomes]),
        },
    }


def _geometric(numbers: list[float]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(numbers))))


def _plain(outcome: Outcome) -> dict[str, Any]:
    fields = outcome._asdict()
    fields["values"] = outcome.values._asdict()
    fields["history"] = {
        **outcome.history,
        "values": [values._asdict() for values in outcome.history["values"]],
    }
    return fields


def draw(
    comparison: Comparison, results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Learning curves against time, and the hyperparameters' paths of RTHO."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    curves, *paths = axes.flat
    _draw_curves(curves, comparison.seeds)
    for axis, name in zip(paths, Values._fields, strict=True):
        _draw_paths(axis, name, comparison.seeds)
    for axis in axes.flat:
        axis.set_xlabel("seconds of training")
        axis.grid(alpha=0.3)
    return [pictures.save(figure, folder / "real_time.png")]


def _draw_curves(curves: Axes, outcomes: list[dict[str, Outcome]]) -> None:
    """The validation accuracy of each method."""
    for method, label in LABELS.items():
        for seed, one in enumerate(outcomes):
            history = one[method].history
            curves.plot(
                history["seconds"],
                history["validation"],
                color=COLORS[method],
                label=None if seed else label,
                alpha=0.8,
            )
    curves.set_ylabel("validation accuracy, %")
    curves.set_title("Learning curves (grid, random: the best run)", fontsize=11)
    curves.legend(fontsize=8)


def _draw_paths(axis: Axes, name: str, outcomes: list[dict[str, Outcome]]) -> None:
    """A hyperparameter of RTHO, and what it is in the grid's best run."""
    for seed, one in enumerate(outcomes):
        history = one["rtho"].history
        axis.plot(
            history["seconds"],
            [getattr(values, name) for values in history["values"]],
            color=COLORS["rtho"],
            alpha=0.8,
            label=None if seed else "RTHO",
        )
        axis.axhline(
            getattr(one["grid"].values, name),
            color=COLORS["grid"],
            linestyle="--",
            alpha=0.8,
            label=None if seed else "the grid's best",
        )
    axis.set_ylabel(name.replace("_", " "))
    if name != "momentum":
        axis.set_yscale("log")
    axis.legend(fontsize=8)
