"""The measurements of `run.py` as Markdown."""

import numpy as np

# A relative difference from float64 above which a tool counts as wrong.
WRONG = 1e-2
# What a family of growing workloads is seen to grow with.
GROWS = {"steps": "steps T", "weights": "weights", "tangents": "hyperparameters m"}
FITTED = 3  # Points of a slope: small sizes show what does not grow.

_COLUMNS = (
    *("tool", "hypergradient", "spread", "/ far_ho_tf", "/ own training"),
    *("compile s", "peak MB", "difference", "configuration"),
)
_PYTORCH = ("torch", "higher", "torchopt", "betty")


def is_wrong(record):
    """Whether a hypergradient differs too much from that in float64, or is NaN."""
    return not difference(record) <= WRONG


def difference(record):
    """The largest relative difference of those hypergradients that it has."""
    found = [one for one in record["differences"].values() if one is not None]
    return max(found, default=np.nan)


def document(results):
    """All tables."""
    tables = [table(workload) for workload in results["workloads"].values()]
    growth = [growth_table(*one) for one in results["growth"].items()]
    parts = [f"Measured on {results['machine']}.", *tables, summary(results), *growth]
    return "\n\n".join(filter(None, parts))


def table(workload):
    """A Markdown table of one workload's records; below it what is not compared."""
    records = workload["records"]
    ours = next((r["median"] for r in timed(records) if r["tool"] == "far"), None)
    lines = [f"**{workload['title']}**", "", _row(_COLUMNS), _row(["---"] * 9)]
    lines += [_row(_cells(record, ours)) for record in timed(records)]
    notes = [_note(r) for r in records if "median" not in r and _note(r)]
    return "\n".join([*lines, "", *notes]).rstrip()


def growth_table(family, records):
    """A Markdown table of times by size, with the slope of each tool."""
    sizes = sorted({record["size"] for record in records})
    head = (GROWS[family], *(f"{size:,}" for size in sizes), "slope")
    lines = [_row(head), _row(["---"] * len(head))]
    for tool in tools_of(timed(records)):
        mine = [record for record in timed(records) if record["tool"] == tool]
        times = {record["size"]: _duration(record["median"]) for record in mine}
        exponent = slope(mine)
        last = "" if exponent is None else f"{exponent:.2f}"
        lines.append(_row((tool, *(times.get(size, "") for size in sizes), last)))
    return "\n".join(lines)


def slope(records):
    """The exponent of growth over the largest sizes; `None` of too few."""
    if len(records) < FITTED:
        return None
    last = records[-FITTED:]
    sizes, times = [r["size"] for r in last], [r["median"] for r in last]
    return np.polyfit(np.log(sizes), np.log(times), 1)[0]


def tools_of(records):
    """Their tools, in order, each once."""
    return list(dict.fromkeys(record["tool"] for record in records))


def timed(records):
    """Those that were measured to the end."""
    return [record for record in records if "median" in record]


def summary(results):
    """How many times faster than the best JAX and the best PyTorch tool; '' if none."""
    if not results["workloads"]:
        return ""
    lines = [
        _row(("workload", "JAX / far_ho_tf", "best PyTorch / far_ho_tf")),
        _row(["---"] * 3),
    ]
    columns = []
    for name, workload in results["workloads"].items():
        columns.append(ratios(workload["records"]))
        lines.append(_row([name, *(_times(ratio) for ratio in columns[-1])]))
    means = [geometric_mean(column) for column in zip(*columns, strict=True)]
    if any(means):
        lines.append(_row(["geometric mean", *(_times(mean) for mean in means)]))
    return "\n".join(lines)


def ratios(records):
    """(JAX's time, the best right PyTorch tool's time) divided by ours, or `None`."""
    times = {
        record["tool"]: record["median"]
        for record in timed(records)
        if not is_wrong(record)
    }
    torch = min((times[t] for t in _PYTORCH if t in times), default=None)
    ours = times.get("far")
    return [
        other / ours if ours and other else None for other in (times.get("jax"), torch)
    ]


def geometric_mean(values):
    """Of those that are not `None`; `None` if there are none."""
    known = [value for value in values if value is not None]
    return float(np.exp(np.mean(np.log(known)))) if known else None


def _times(ratio):
    return "" if ratio is None else f"{ratio:.2f}"


def _cells(record, ours):
    median = record["median"]
    low, high = np.percentile(record["hypergradient"], [25, 75])
    missing = [name for name, one in record["differences"].items() if one is None]
    note = f"; no {', '.join(missing)}" if missing else ""
    if "states_memory" in record:
        note += f"; with states alone {record['states_memory'] / 1e6:.0f} MB"
    return [
        record["tool"],
        "wrong" if is_wrong(record) else _duration(median),
        f"{(high - low) / median:.0%}",
        f"{median / ours:.2f}" if ours and not is_wrong(record) else "",
        f"{median / np.median(record['train']):.1f}",
        f"{record['first'] - median:.1f}",
        f"{record['memory'] / 1e6:.0f}",
        f"{difference(record):.1e}",
        record["configuration"] + note,
    ]


def _note(record):
    """What became of a configuration that is not in the table, where that matters."""
    name = f"{record['tool']} {record['configuration']}".strip()
    if "failure" in record:
        return f"* {name} fails: {record['failure'][:300]}"
    if is_wrong(record):
        return f"* {name} is wrong by {difference(record):.0e}."
    return ""


def _duration(seconds):
    return f"{1000 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _row(cells):
    return "| " + " | ".join(cells) + " |"
