"""The measurements of `run.py` as Markdown."""

import numpy as np

# A relative difference from float64 above which a tool counts as wrong.
WRONG = 1e-3
# What a family of growing workloads is seen to grow with.
GROWS = {"steps": "steps T", "weights": "weights", "tangents": "hyperparameters m"}
FITTED = 3  # Points of a slope: small sizes show what does not grow.

_COLUMNS = (
    *("tool", "hypergradient", "spread", "n", "/ far_ho_tf", "/ own training"),
    *("compile s", "peak MB", "difference", "configuration"),
)
PYTORCH = ("torch", "higher", "torchopt", "betty")
_COMPARED = (("far",), ("jax",), PYTORCH)


def is_wrong(record):
    """Whether a hypergradient differs too much from that in float64, or is NaN."""
    return not difference(record) <= WRONG


def difference(record):
    """The largest relative difference of those hypergradients that it has."""
    found = [one for one in record["differences"].values() if one is not None]
    return float(np.max(found)) if found else np.nan  # NaN if one is.


def document(results):
    """All tables."""
    tables = [table(workload) for workload in results["workloads"].values()]
    growth = [growth_table(*one) for one in results["growth"].items()]
    parts = [f"Measured on {results['machine']}.", summary(results), *tables, *growth]
    return "\n\n".join(filter(None, parts))


def table(workload):
    """A Markdown table of one workload's records; below it what is not compared."""
    records = workload["records"]
    ours = best(records, ("far",))
    unit = ours and ours["median"]
    lines = [f"**{workload['title']}**", "", _row(_COLUMNS), _row(["---"] * 10)]
    lines += [_row(_cells(record, unit)) for record in timed(records)]
    return "\n".join([*lines, "", *_notes(records)]).rstrip()


def growth_table(family, records):
    """A Markdown table of times by size, with the slope of each tool."""
    sizes = sizes_of(records)
    head = (GROWS[family], *(f"{size:,}" for size in sizes), "slope")
    lines = [f"**Growth with {GROWS[family]}**", "", _row(head)]
    lines.append(_row(["---"] * len(head)))
    for tool in tools_of(timed(records)):
        times = times_of(records, tool)
        cells = [_duration(times[n]) if n in times else "" for n in sizes]
        exponent = slope(times, sizes)
        cells.append("" if exponent is None else f"{exponent:.2f}")
        lines.append(_row((tool, *cells)))
    notes = {n: _notes([r for r in records if r["size"] == n]) for n in sizes}
    told = [note.replace("*", f"* {n:,}:", 1) for n in sizes for note in notes[n]]
    return "\n".join([*lines, "", *told]).rstrip()


def times_of(records, tool):
    """By size, the times of a tool where it is right."""
    found = {n: [r for r in records if r["size"] == n] for n in sizes_of(records)}
    found = {n: best(mine, (tool,)) for n, mine in found.items()}
    return {n: record["median"] for n, record in found.items() if record}


def sizes_of(records):
    """Their sizes, in order, each once."""
    return sorted({record["size"] for record in records})


def slope(times, sizes):
    """The exponent of growth over the largest of all sizes; `None` if one is missing.

    Args:
        times: Mapping from sizes to seconds.
        sizes: All of them, in order.
    """
    last = sizes[-FITTED:]
    if len(last) < FITTED or not set(last) <= set(times):
        return None
    return np.polyfit(np.log(last), np.log([times[n] for n in last]), 1)[0]


def tools_of(records):
    """Their tools, in order, each once."""
    return list(dict.fromkeys(record["tool"] for record in records))


def timed(records):
    """Those that were measured to the end."""
    return [record for record in records if "median" in record]


def summary(results):
    """Beside the best JAX and the best PyTorch tool, on all workloads; '' if none."""
    if not results["workloads"]:
        return ""
    head = ("workload", "far_ho_tf", "JAX", "best PyTorch tool")
    lines = [
        _row((*head, "JAX / far_ho_tf", "best PyTorch / far_ho_tf")),
        _row(["---"] * 6),
    ]
    columns = []
    for workload in results["workloads"].values():
        columns.append(ratios(workload["records"]))
        bests = [best(workload["records"], tools) for tools in _COMPARED]
        ratio_cells = [_times(ratio) for ratio in columns[-1]]
        lines.append(_row([workload["title"], *map(_named, bests), *ratio_cells]))
    means = [geometric_mean(column) for column in zip(*columns, strict=True)]
    if any(means):
        cells = ["geometric mean", "", "", "", *(_times(mean) for mean in means)]
        lines.append(_row(cells))
    return "\n".join(lines)


def ratios(records):
    """(JAX's time, the best right PyTorch tool's time) divided by ours, or `None`."""
    ours, *others = (best(records, tools) for tools in _COMPARED)
    return [
        other["median"] / ours["median"] if ours and other else None for other in others
    ]


def best(records, tools):
    """The fastest that is right, of some tools, or `None`.

    One that lacks derivatives counts only where all do.
    """
    right = [
        record
        for record in timed(records)
        if record["tool"] in tools and record["counts"] and not is_wrong(record)
    ]
    return min(
        right,
        key=lambda record: (bool(_missing(record)), record["median"]),
        default=None,
    )


def _missing(record):
    return [name for name, one in record["differences"].items() if one is None]


def _named(record):
    if record is None:
        return ""
    name = f" ({record['tool']})" if record["tool"] in PYTORCH else ""
    return _duration(record["median"]) + name


def geometric_mean(values):
    """Of those that are not `None`; `None` if there are none."""
    known = [value for value in values if value is not None]
    return float(np.exp(np.mean(np.log(known)))) if known else None


def _times(ratio):
    return "" if ratio is None else f"{ratio:.2f}"


def _cells(record, ours):
    median = record["median"]
    low, high = np.percentile(record["hypergradient"], [25, 75])
    missing, memory = _missing(record), record["memory"]
    note = f"; no {', '.join(missing)}" if missing else ""
    return [
        record["tool"],
        "wrong" if is_wrong(record) else _duration(median),
        f"{(high - low) / median:.0%}",
        str(len(record["hypergradient"])),
        f"{median / ours:.2f}" if ours and not is_wrong(record) else "",
        f"{median / np.median(record['train']):.1f}",
        f"{record['first'] - median:.1f}",
        "" if memory is None else f"{memory / 1e6:.0f}",
        f"{difference(record):.1e}",
        record["configuration"] + note,
    ]


def _notes(records):
    """What became of configurations that are not in the table, where that matters."""
    notes = []
    for record in records:
        name = f"{record['tool']} {record['configuration']}".strip()
        if "failure" in record:
            notes.append(f"* {name}: {record['failure'][:300]}")
        elif "median" not in record and is_wrong(record):
            notes.append(f"* {name} is wrong by {difference(record):.0e}.")
    return notes


def _duration(seconds):
    return f"{1000 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _row(cells):
    return "| " + " | ".join(cells) + " |"
