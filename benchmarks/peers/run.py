"""Times far_ho_tf beside other tools for hypergradients, on the same problems.

Each tool has a process of its own; they are asked in turn, so that what else the
machine does falls on all of them. Of a tool's configurations the fastest counts. A
hypergradient is compared with JAX's in float64. Prints a Markdown table for each
workload, and writes results.json to --output_dir.

Run by `make bench`, which makes an environment with all tools;
`make bench WORKLOAD=1,2 TOOL=jax,far` runs a part.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from peak_memory import FREEING
from peers import report
from peers.workloads import WORKLOADS

TOOLS = ("far", "jax", "torch", "higher", "torchopt")
WORKER = pathlib.Path(__file__).parent / "worker.py"

FLAGS = flags.FLAGS
flags.DEFINE_list("workload", list(WORKLOADS), "Which workloads, by number.")
flags.DEFINE_list("tool", list(TOOLS), "Which tools.")
flags.DEFINE_integer("rounds", 7, "Measurements of each.", lower_bound=1)
flags.DEFINE_float("most_seconds", 300.0, "For one workload and tool.", lower_bound=1)
flags.DEFINE_string("output_dir", "benchmarks/results", "Where to write.")


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
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def configurations(tool, workload):
    """The names of a tool's configurations; a `RuntimeError` if it fails."""
    worker = Worker(tool, "list", workload)
    try:
        return worker.ask("")
    finally:
        worker.close()


def values(worker):
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


def start(tool, workload, reference):
    """All configurations of a tool, compiled.

    Returns:
        List of pairs (worker or `None`, record), the fastest first.
    """
    try:
        names = configurations(tool, workload)
    except RuntimeError as error:
        return [(None, {"tool": tool, "configuration": "", "failure": str(error)})]
    started = []
    for name in names:
        record = {"tool": tool, "configuration": name}
        worker = Worker(tool, name, workload)
        try:
            record["first"], _ = worker.ask("prepare")
            record["once"] = worker.ask("hypergradient")
            record["differences"] = differences(values(worker), reference)
        except RuntimeError as error:
            record["failure"] = str(error)
            worker.close()
            worker = None
        print("    ", record, flush=True)
        started.append((worker, record))
    return sorted(started, key=lambda pair: pair[1].get("once", np.inf))


def measure(workload, tools):
    """The records of all tools on a workload: of each its fastest configuration."""
    print(f"{workload}: {WORKLOADS[workload]().title}", flush=True)
    truth = Worker("jax", "reference", workload)
    reference = values(truth)
    truth.close()
    timed, best = [], []
    for tool in tools:
        started = start(tool, workload, reference)
        fast, failed = _finalists(started)
        timed += fast
        best += [] if fast else failed[:1]
    _take_turns(timed)
    for tool in tools:
        mine = [record for _, record in timed if record["tool"] == tool]
        best += sorted(mine, key=lambda record: record["median"])[:1]
    for record in best:
        if "median" in record:
            watched = Worker(record["tool"], record["configuration"], workload, FREEING)
            watched.ask("prepare")
            record["memory"] = watched.ask("memory")
            watched.close()
    return best


def _finalists(started):
    """Those of a tool's configurations that may be its fastest; those that failed."""
    fast, failed = [], []
    for worker, record in started:
        if worker is None:
            failed.append(record)
        elif record["once"] <= 1.2 * started[0][1]["once"]:
            fast.append((worker, record))
        else:
            worker.close()
    return fast, failed


def _take_turns(timed):
    """Adds the measurements to the records, round by round, and ends the workers."""
    slowest = max((record["once"] for _, record in timed), default=1.0)
    rounds = min(FLAGS.rounds, max(2, int(FLAGS.most_seconds / (2 * slowest))))
    for command in ("hypergradient", "train"):
        for _, record in timed:
            record[command] = []
    for _ in range(rounds):
        for worker, record in timed:
            for command in ("hypergradient", "train"):
                record[command].append(worker.ask(command))
    for worker, record in timed:
        worker.close()
        record["median"] = float(np.median(record["hypergradient"]))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    for name, asked, known in (
        ("workload", FLAGS.workload, WORKLOADS),
        ("tool", FLAGS.tool, TOOLS),
    ):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            sys.exit(f"--{name} must be of {', '.join(known)}. Received: {unknown}")
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "workloads": {}}
    for workload in FLAGS.workload:
        records = measure(workload, FLAGS.tool)
        results["workloads"][workload] = {
            "title": WORKLOADS[workload]().title,
            "records": records,
        }
        path = folder / "results.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(report.table(results["workloads"][workload]), flush=True)


def machine():
    """What the figures were measured on."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}"


if __name__ == "__main__":
    app.run(main)
