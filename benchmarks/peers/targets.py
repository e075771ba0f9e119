"""What far_ho_tf is to reach beside other tools, and where it does not."""

import numpy as np

from peers.report import PYTORCH as PYTORCH_TOOLS
from peers.report import best, difference, geometric_mean, ratios, timed
from peers.workloads import STATES_ALONE, WORKLOADS

# JAX's time divided by ours: at least, on each workload and on their geometric mean.
JAX, JAX_MEAN = 1.0, 1.25
# The best PyTorch tool's time divided by ours: at least, and on some workloads.
PYTORCH, PYTORCH_ON = 1.2, {"2": 20.0}
# A hypergradient's time divided by our own plain training run's: at most.
TRAINING_RUNS = {"1": 4.0, "4": 4.0}
DIFFERENCE = 1e-4


def text(results):
    """The targets that were missed, as Markdown; '' where none was measured."""
    if not results["workloads"]:
        return ""
    return "\n".join(["**Targets missed**", "", *(misses(results) or ["* None."])])


def misses(results):
    """List items in Markdown, one for each target that was missed."""
    workloads = {name: one["records"] for name, one in results["workloads"].items()}
    found = []
    for name, records in workloads.items():
        found += [f"* {name}: {text}" for text in _of_workload(name, records)]
    jax = [ratios(records)[0] for records in workloads.values()]
    mean = geometric_mean(jax)
    if len(jax) == len(WORKLOADS) and mean is not None and mean < JAX_MEAN:
        found.append(f"* JAX / far_ho_tf {mean:.2f} on the mean, not {JAX_MEAN}.")
    return found


def _of_workload(name, records):
    ours, asked = best(records, ("far",)), {record["tool"] for record in records}
    if ours is None:
        yield "no right hypergradient of far_ho_tf."
        return
    if difference(ours) > DIFFERENCE:
        yield f"it differs by {difference(ours):.0e}, more than {DIFFERENCE:.0e}."
    jax, torch = ratios(records)
    least = PYTORCH_ON.get(name, PYTORCH)
    if jax is not None and jax < JAX:
        yield f"JAX / far_ho_tf {jax:.2f}, not {JAX}."
    if torch is not None and torch < least:
        yield f"the best PyTorch tool / far_ho_tf {torch:.2f}, not {least}."
    runs = ours["median"] / np.median(ours["train"])
    if runs > TRAINING_RUNS.get(name, np.inf):
        yield f"{runs:.1f} of its own training runs, not {TRAINING_RUNS[name]}."
    if torch is None and asked & set(PYTORCH_TOOLS):
        yield "no right hypergradient of a PyTorch tool."
    peer = best(records, ("jax",))
    if peer is not None:
        yield from _of_memory(ours, peer, records)
    elif "jax" in asked:
        yield "no right hypergradient of JAX."


def _of_memory(ours, peer, records):
    """With the policy that JAX's fastest has."""
    if STATES_ALONE in peer["configuration"]:
        mine = [r for r in timed(records) if r["tool"] == "far"]
        ours = next((r for r in mine if r["configuration"] == STATES_ALONE), ours)
    sizes = [record["memory"] for record in (ours, peer)]
    if None not in sizes and sizes[0] > sizes[1]:
        name, (mine, other) = ours["configuration"], [f"{s / 1e6:.0f}" for s in sizes]
        yield f"{mine} MB at the peak ({name}), where JAX takes {other}."
