"""Measures tools in turn, each in a process of its own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from peak_memory import FREEING
from peers.report import is_wrong

TOOLS = ("far", "jax", "torch", "higher", "torchopt", "betty")
WORKER = pathlib.Path(__file__).parent / "worker.py"
# JAX's in growth: to store less is its fastest there at large sizes.
_IN_GROWTH = {"jax": ("scan, checkpoint of each step, unroll 1", "scan, unroll 1")}
# What is timed, where not all configurations are: far_ho_tf as users get it unasked.
_TIMED = {"far": ("auto",)}


class Worker:
    """One tool and configuration on one workload; see `worker.py`."""

    def __init__(self, tool, configuration, workload, environment=None):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by `close`.
        self._process = subprocess.Popen(
            [sys.executable, WORKER, tool, configuration, workload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | (environment or {}),
        )

    def ask(self, command):
        """The answer; raises a `RuntimeError` with the last line of what went wrong."""
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            lines = [line for line in self._log.read().splitlines() if line.strip()]
            raise RuntimeError(lines[-1] if lines else "It ended without a word.")
        return json.loads(answer)

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # It ended before.
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def measure(workload, tools, rounds, most_seconds):
    """Times all tools on a workload.

    Args:
        workload: Its name.
        tools: Names of `TOOLS`.
        rounds: Measurements of each, at most.
        most_seconds: About how long the measurements of a tool may take.

    Returns:
        List of records, one for each configuration: of a tool the fastest that is
        right comes first, and is the only one that has a "median", but where none is
        right.
    """
    with Worker("jax", "reference", workload) as worker:
        reference = _values(worker)
    timed, records = [], []
    for tool in tools:
        started = _start(tool, workload, reference)
        fast = _finalists(started)
        timed += fast
        records += [record for _, record in started]
    _take_turns(timed, rounds, most_seconds)
    for tool in tools:
        mine = [r for r in records if r["tool"] == tool and "median" in r]
        best = min(mine, key=lambda record: record["median"], default=None)
        for record in mine:
            if record is not best:
                del record["median"]
        if best is not None:
            best["memory"] = _memory(tool, best["configuration"], workload)
    _compare_memory(records, workload)
    return sorted(records, key=lambda r: (tools.index(r["tool"]), "median" not in r))


def measure_growth(family, sizes, tools, rounds, most_seconds):
    """Times tools on workloads of growing size, each by one configuration.

    Returns:
        List of records with "size".
    """
    records = []
    for size in sizes:
        workload, timed = f"{family}-{size}", []
        for tool in tools:
            try:
                known = _configurations(tool, workload)
            except RuntimeError:
                continue
            wanted = [n for n in _IN_GROWTH.get(tool, ()) if n in known]
            for name in (wanted or known)[:1]:
                record = {"tool": tool, "configuration": name, "size": size}
                records.append(record)
                worker = _prepare(record, workload)
                if worker is not None:
                    timed.append((worker, record))
        _take_turns(timed, rounds, most_seconds)
    return records


def _configurations(tool, workload):
    """The names of a tool's configurations; a `RuntimeError` if it fails."""
    with Worker(tool, "list", workload) as worker:
        return worker.ask("")


def _prepare(record, workload):
    """Compiles, and makes one hypergradient; its times or a failure go to the record.

    Returns:
        The `Worker`, or `None`.
    """
    worker = Worker(record["tool"], record["configuration"], workload)
    try:
        record["first"], _ = worker.ask("prepare")
        record["once"] = worker.ask("hypergradient")
    except RuntimeError as error:
        record["failure"] = str(error)
        worker.close()
        return None
    return worker


def _start(tool, workload, reference):
    """All configurations of a tool, compiled: list of (worker or `None`, record)."""
    try:
        names = _configurations(tool, workload)
        failure = "" if names else "it has no such derivatives, or not in this mode."
    except RuntimeError as error:
        names, failure = [], str(error)
    if not names:
        return [(None, {"tool": tool, "configuration": "", "failure": failure})]
    started = []
    for name in _TIMED.get(tool, names):
        record = {"tool": tool, "configuration": name}
        worker = _prepare(record, workload)
        if worker is not None:
            record["differences"] = differences(_values(worker), reference)
        print("    ", record, flush=True)
        started.append((worker, record))
    return started


def _values(worker):
    """The worker's hypergradient: a mapping to float64 arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "values.npz")
        worker.ask(f"values {path}")
        with np.load(path) as arrays:
            return {name: arrays[name].astype(np.float64) for name in arrays.files}


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


def _finalists(started):
    """Those of a tool's configurations that may be its fastest; ends the others.

    Wrong ones count only where none is right.
    """
    works = [(worker, record) for worker, record in started if worker is not None]
    right = [pair for pair in works if not is_wrong(pair[1])] or works
    fastest = min((record["once"] for _, record in right), default=0.0)
    fast = [pair for pair in right if pair[1]["once"] <= 1.2 * fastest]
    for worker, record in works:
        if not any(record is other for _, other in fast):
            worker.close()
    return fast


def _take_turns(timed, rounds, most_seconds):
    """Adds the measurements to the records, round by round, and ends the workers."""
    slowest = max((record["once"] for _, record in timed), default=1.0)
    rounds = min(rounds, max(2, int(most_seconds / (2 * slowest))))
    for command in ("hypergradient", "train"):
        for _, record in timed:
            record[command] = []
    for _ in range(rounds):
        for worker, record in timed:
            if "failure" not in record:
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


def _compare_memory(records, workload):
    """Adds far_ho_tf's "states_memory" where JAX's fastest keeps states alone."""
    best = {r["tool"]: r for r in records if "memory" in r}
    if "far" in best and "of each step" in best.get("jax", {}).get("configuration", ""):
        best["far"]["states_memory"] = _memory("far", "states alone", workload)


def _memory(tool, configuration, workload):
    """Bytes at the peak of a hypergradient, beyond what one of two steps leaves behind.

    Not only its growth in a second one: XLA in TensorFlow keeps what the first took.
    """
    held = []
    for name in (f"{workload}@2", workload):
        with Worker(tool, configuration, name, environment=FREEING) as worker:
            worker.ask("prepare")
            held.append(worker.ask("held"))
            growth = worker.ask("memory")
    return growth + max(0, held[1] - held[0])
