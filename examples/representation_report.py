"""Table, results.json and pictures of hyper_representation.py."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from output import save_figure

_LABELS = {
    "pixels": "raw pixels",
    "initial": "the network before it learned",
    "learned": "the learned representation",
}


def summarize(outcome, flags):
    """What results.json holds.

    Args:
        outcome: What `representation_experiment.compare` returned.
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


def table(results):
    """The results as text."""
    flags = results["flags"]
    row = "{:<34}{:>12}{:>12}{:>12}".format
    lines = [
        f"{flags['ways']} ways, {flags['shots']} shots, {flags['num_steps']} steps, on "
        f"held-out classes; mean of {flags['test_episodes']} episodes:",
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


def draw_curve(results, folder):
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
    return save_figure(figure, folder / "curve.png")


def draw_episodes(outcome, folder, most=10):
    """Held-out episodes: what is learned from, and queries with their verdicts."""
    episodes, right = outcome["shown"]
    random = np.random.RandomState(0)
    columns = min(most, len(episodes[0].support[0]))
    others = min(most, len(episodes[0].query[0]))
    figure, axes = plt.subplots(
        len(episodes),
        columns + others,
        figsize=(0.75 * (columns + others), 1.05 * len(episodes) + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for row, episode, verdicts in zip(axes, episodes, right, strict=True):
        for places, axis_row, images, colors in (
            (range(columns), row, episode.support[0], None),
            (
                np.sort(random.choice(len(verdicts), others, replace=False)),
                row[columns:],
                episode.query[0],
                np.where(verdicts, "tab:green", "tab:red"),
            ),
        ):
            for place, axis in zip(places, axis_row, strict=False):
                axis.imshow(np.reshape(images[place], (28, 28)), cmap="gray_r")
                axis.set_xticks([])
                axis.set_yticks([])
                for spine in axis.spines.values():
                    spine.set(linewidth=2)
                    spine.set_color("silver" if colors is None else colors[place])
    axes[0, 0].set_title("support set", loc="left", fontsize=9)
    axes[0, columns].set_title(
        "queries: right in green, wrong in red", loc="left", fontsize=9
    )
    return save_figure(figure, folder / "episodes.png")
