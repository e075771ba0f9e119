"""Measures tools in turn, each in a process of its own."""

import os
import tempfile

import numpy as np

from peak_memory import FREEING
from peers import workloads
from peers.asking import Worker
from peers.report import is_wrong

TOOLS = ("far", "jax", "torch", "higher", "torchopt", "betty")
# far_ho_tf is judged as its users get it unasked, others by their fastest.
_DEFAULT = {"far": "auto"}
_LEAST_ROUNDS = 3
# What a tool holds after these is its own, not the workload's.
_TINY = {"reverse": "2@2", "checkpoints": "7-2@2", "forward": "6-2-2@2"}


def measure(workload, tools, rounds, most_seconds, few=False):
    """Times all tools on a workload.

    Args:
        workload: Its name.
        tools: Names of `TOOLS`.
        rounds: Measurements of each configuration, at most.
        most_seconds: About how long those may take, but that there are three.
        few: Whether only configurations are tried that compile soon, and memory is not
            measured.

    Returns:
        List of records, one for each configuration. Those that were measured to the
        end have a "median"; of these, one of each tool "counts".
    """
    try:
        with Worker("jax", "reference", workload) as worker:
            reference = _values(worker)
    except RuntimeError as error:
        return [_failed("jax", "in float64, the reference,", error)]
    timed, records = [], []
    for tool in tools:
        started = _start(tool, workload, reference, few)
        timed += _finalists(started)
        records += [record for _, record in started]
    _take_turns(timed, rounds, most_seconds)
    for tool in tools:
        for record in _settle([r for r in records if r["tool"] == tool]):
            if not few:
                record["memory"] = _memory(record, workload)
    return sorted(records, key=lambda r: (tools.index(r["tool"]), "median" not in r))


def measure_growth(family, sizes, tools, rounds, most_seconds):
    """`measure` on workloads of growing size: records with "size"."""
    return [
        record | {"size": size}
        for size in sizes
        for record in measure(f"{family}-{size}", tools, rounds, most_seconds, few=True)
    ]


def differences(found, reference):
    """The relative difference of each hypergradient; `None` for one not computed."""
    return {
        name: (
            float(np.linalg.norm(found[name] - one) / np.linalg.norm(one))
            if name in found
            else None
        )
        for name, one in reference.items()
    }


def _failed(tool, configuration, error):
    return {"tool": tool, "configuration": configuration, "failure": str(error)}


def _start(tool, workload, reference, few):
    """All configurations of a tool, compiled: list of (worker or `None`, record)."""
    try:
        with Worker(tool, "list", workload) as worker:
            names = worker.ask("")
    except RuntimeError as error:
        return [(None, _failed(tool, "", error))]
    if not names:
        return [(None, _failed(tool, "", "it is not run in this mode"))]
    started = []
    for name in names:
        if few and _is_slow_to_start(name):
            continue
        worker = Worker(tool, name, workload)
        try:
            record = {"tool": tool, "configuration": name, **_tried(worker, reference)}
        except RuntimeError as error:
            worker.close()
            worker, record = None, _failed(tool, name, error)
        print("    ", record, flush=True)
        started.append((worker, record))
    return started


def _is_slow_to_start(name):
    return "unroll 8" in name or "Implicit" in name or name == workloads.STATES_ALONE


def _tried(worker, reference):
    """Compiles, and makes a hypergradient and compares it."""
    first, _ = worker.ask("prepare")
    return {
        "first": first,
        "once": worker.ask("hypergradient"),
        "differences": differences(_values(worker), reference),
    }


def _values(worker):
    """The worker's hypergradient: a mapping to float64 arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "values.npz")
        worker.ask(f"values {path}")
        with np.load(path) as arrays:
            return {name: arrays[name].astype(np.float64) for name in arrays.files}


def _finalists(started):
    """Those of a tool's configurations that may be its fastest; ends the others.

    Wrong ones count only where none is right.
    """
    works = [(worker, record) for worker, record in started if worker is not None]
    right = [pair for pair in works if not is_wrong(pair[1])] or works
    if any(record["tool"] in _DEFAULT for _, record in works):
        return works
    fastest = min((record["once"] for _, record in right), default=0.0)
    fast = [pair for pair in right if pair[1]["once"] <= 1.2 * fastest]
    for worker, record in works:
        if not any(record is other for _, other in fast):
            worker.close()
    return fast


def _take_turns(timed, rounds, most_seconds):
    """Adds the measurements to the records, round by round, and ends the workers."""
    for _, record in timed:
        record |= {"hypergradient": [], "train": []}
    for turn in range(rounds):
        # Back and forth, so that none always follows the same other one.
        for worker, record in timed if turn % 2 == 0 else reversed(timed):
            spent = sum(record["hypergradient"] + record["train"])
            late = turn >= _LEAST_ROUNDS and spent > most_seconds
            if "failure" not in record and not late:
                _time(worker, record)
    for worker, record in timed:
        worker.close()
        if "failure" not in record:
            record["median"] = float(np.median(record["hypergradient"]))


def _time(worker, record):
    try:
        for command in ("hypergradient", "train"):
            record[command].append(worker.ask(command))
    except RuntimeError as error:  # Such as memory that others took meanwhile.
        record["failure"] = str(error)


def _settle(mine):
    """Says which of a tool's records counts; returns those that keep a median."""
    timed = [record for record in mine if "median" in record]
    if not timed:
        return []
    best = min(timed, key=lambda record: record["median"])
    default = _DEFAULT.get(best["tool"])
    if default is None:
        kept = [best]
    else:
        kept = timed
        best = next((r for r in timed if r["configuration"] == default), None)
    for record in timed:
        record["counts"] = record is best
        if not any(record is other for other in kept):
            del record["median"]
    return kept


def _memory(record, workload):
    """Bytes at the peak of a hypergradient, or `None` if that failed.

    Its growth in a second one, and what the process still holds of the first, since XLA
    in TensorFlow keeps what a program took; less what it holds of a tiny one.
    """
    left = []
    try:
        for name in (_TINY[workloads.of(workload).mode], workload):
            arguments = record["tool"], record["configuration"], name
            with Worker(*arguments, environment=FREEING) as worker:
                before = worker.ask("held")
                worker.ask("prepare")
                left.append(worker.ask("held") - before)
                growth = worker.ask("memory")
    except RuntimeError:
        return None
    return growth + max(0, left[1] - left[0])
