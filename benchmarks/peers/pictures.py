"""The measurements of `run.py` as pictures."""

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt

from peers.report import FITTED, GROWS, best, sizes_of, slope, timed, times_of, tools_of

_NAMES = {"far": "far_ho_tf", "jax": "JAX", "torch": "PyTorch by hand"}


def draw(results, folder):
    """Writes workloads.png and a growth-*.png for each family that was measured."""
    measured = [r for w in results["workloads"].values() for r in timed(w["records"])]
    if measured:
        _bars(results["workloads"], folder / "workloads.png")
    for family, records in results["growth"].items():
        _growth(family, records, folder / f"growth-{family}.png")


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
    figure.legend(loc="outside upper center", ncols=len(tools), fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _relative(records, tool):
    one, ours = best(records, (tool,)), best(records, ("far",))
    return one["median"] / ours["median"] if one and ours else np.nan


def _growth(family, records, path):
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    sizes = sizes_of(records)
    for tool in tools_of(timed(records)):
        label, times = _NAMES.get(tool, tool), times_of(records, tool)
        exponent = slope(times, sizes)
        if exponent is not None:
            label += f", slope {exponent:.2f}"
        axes.loglog(list(times), list(times.values()), "o-", label=label)
    axes.set_xlabel(GROWS[family])
    axes.set_ylabel("seconds of a hypergradient")
    axes.set_title(f"slopes over the {FITTED} largest", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
