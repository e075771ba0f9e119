"""Table, results.json and picture of data-parallel tuning."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from examples.common import pictures


def summarize(outcome: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds."""
    return {**outcome, "flags": flags}


def table(results: dict[str, Any]) -> str:
    """The outcome as lines of text."""
    first, last = (results["history"]["outer_value"][i] for i in (0, -1))
    lines = [f"{_replicas(results)}, {results['seconds']:.1f} s"]
    if results["resumed_from"]:
        lines[0] += f", went on from hyper-iteration {results['resumed_from']}"
    lines.append(f"validation loss {first:.4f} -> {last:.4f}")
    for name, value in results["hyperparameters"].items():
        start = results["history"][name][0]
        lines.append(f"{name:>15} {start:.4f} -> {value:.7g}")
    return "\n".join(lines)


def draw(
    outcome: dict[str, Any], results: dict[str, Any], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws the validation loss by hyper-iteration, to curve.png."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(results["history"]["outer_value"], marker=".")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("hyper-iteration")
    axes.set_ylabel("validation loss after training")
    axes.set_title(f"Descent on learning rate, momentum, L2: {_replicas(results)}")
    return [pictures.save(figure, folder / "curve.png")]


def _replicas(results: dict[str, Any]) -> str:
    count = results["num_replicas"]
    return "1 replica" if count == 1 else f"{count} replicas"
