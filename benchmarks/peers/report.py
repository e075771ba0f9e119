"""The measurements of `run.py` as Markdown."""

import numpy as np

# A relative difference from float64 above which a tool counts as wrong.
WRONG = 1e-2

_COLUMNS = (
    *("tool", "hypergradient", "spread", "/ far_ho_tf", "/ own training"),
    *("compile s", "peak MB", "difference", "configuration"),
)


def table(workload):
    """A Markdown table of one workload's records."""
    records = workload["records"]
    ours = next((r["median"] for r in records if r["tool"] == "far"), None)
    lines = [f"**{workload['title']}**", "", _row(_COLUMNS), _row(["---"] * 9)]
    lines += [_row(_cells(record, ours)) for record in records]
    return "\n".join(lines)


def _cells(record, ours):
    if "median" not in record:
        return [record["tool"], *[""] * 7, f"fails: {record['failure']}"]
    median = record["median"]
    low, high = np.percentile(record["hypergradient"], [25, 75])
    missing = [name for name, one in record["differences"].items() if one is None]
    worst = max(one for one in record["differences"].values() if one is not None)
    note = f"; no {', '.join(missing)}" if missing else ""
    return [
        record["tool"],
        "wrong" if not worst <= WRONG else _duration(median),
        f"{(high - low) / median:.0%}",
        f"{median / ours:.2f}" if ours else "",
        f"{median / np.median(record['train']):.1f}",
        f"{record['first'] - median:.1f}",
        f"{record['memory'] / 1e6:.0f}",
        f"{worst:.1e}",
        record["configuration"] + note,
    ]


def _duration(seconds):
    return f"{1000 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _row(cells):
    return "| " + " | ".join(cells) + " |"
