"""The measurements of `run.py` as pictures."""

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt

from peers.report import FITTED, GROWS, is_wrong, slope, timed, tools_of

_NAMES = {"far": "far_ho_tf", "jax": "JAX", "torch": "PyTorch by hand"}


def draw(results, folder):
    """Writes workloads.png and a growth-*.png for each family that was measured."""
    if results["workloads"]:
        _bars(results["workloads"], folder / "workloads.png")
    for family, records in results["growth"].items():
        _growth(family, timed(records), folder / f"growth-{family}.png")


def _bars(workloads, path):
    """The time of each tool that is right, divided by ours."""
    tools = tools_of(r for w in workloads.values() for r in timed(w["records"]))
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
    for tool in tools_of(records):
        mine = [record for record in records if record["tool"] == tool]
        label = _NAMES.get(tool, tool)
        exponent = slope(mine)
        if exponent is not None:
            label += f", slope {exponent:.2f}"
        sizes = [record["size"] for record in mine]
        axes.loglog(sizes, [record["median"] for record in mine], "o-", label=label)
    axes.set_xlabel(GROWS[family])
    axes.set_ylabel("seconds of a hypergradient")
    axes.set_title(f"slopes over the {FITTED} largest", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
