"""The measurements of `run.py` as pictures."""

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt

from peers.report import is_wrong, timed

_LABELS = {"steps": "steps T", "weights": "weights", "tangents": "hyperparameters m"}
_NAMES = {"far": "far_ho_tf", "jax": "JAX", "torch": "PyTorch by hand"}
_FITTED = 3  # Points: small sizes show what does not grow.


def draw(results, folder):
    """Writes workloads.png and a growth-*.png for each family that was measured."""
    if results["workloads"]:
        _bars(results["workloads"], folder / "workloads.png")
    for family, records in results["growth"].items():
        _growth(family, timed(records), folder / f"growth-{family}.png")


def slope(sizes, times):
    """The exponent of growth over the largest sizes."""
    return np.polyfit(np.log(sizes[-_FITTED:]), np.log(times[-_FITTED:]), 1)[0]


def _bars(workloads, path):
    """The time of each tool that is right, divided by ours."""
    tools = _tools(r for w in workloads.values() for r in timed(w["records"]))
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    width = 0.8 / len(tools)
    for index, tool in enumerate(tools):
        heights = [_relative(w["records"], tool) for w in workloads.values()]
        places = np.arange(len(workloads)) + width * (index - (len(tools) - 1) / 2)
        axes.bar(places, heights, width, label=_NAMES.get(tool, tool))
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(workloads)), list(workloads))
    axes.set_xlabel("workload")
    axes.set_ylabel("time of a hypergradient / far_ho_tf's")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _relative(records, tool):
    times = {r["tool"]: r["median"] for r in timed(records) if not is_wrong(r)}
    return times[tool] / times["far"] if {tool, "far"} <= set(times) else np.nan


def _growth(family, records, path):
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for tool in _tools(records):
        mine = [record for record in records if record["tool"] == tool]
        sizes = [record["size"] for record in mine]
        times = [record["median"] for record in mine]
        label = _NAMES.get(tool, tool)
        if len(mine) >= _FITTED:
            label += f", slope {slope(sizes, times):.2f}"
        axes.loglog(sizes, times, "o-", label=label)
    axes.set_xlabel(_LABELS[family])
    axes.set_ylabel("seconds of a hypergradient")
    title = f"slopes over the {_FITTED} largest"
    if family == "tangents":
        title = "far_ho_tf and JAX in forward mode, the others in reverse; " + title
    axes.set_title(title, fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _tools(records):
    return list(dict.fromkeys(record["tool"] for record in records))
