"""Times far_ho_tf beside other tools for hypergradients, on the same problems.

Each tool has a process of its own; they are asked in turn, so that what else the
machine does falls on all of them. Of a tool's configurations the fastest that is right
counts. A hypergradient is compared with JAX's in float64. Then it is seen how the time
grows, with few configurations of each tool. Writes results.json, tables.md and pictures
to --output_dir, and prints the tables; what lies there of other workloads stays.

Run by `make bench`, which makes an environment with all tools;
`make bench WORKLOAD=1,2,steps TOOL=jax,far` runs a part.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from peers import pictures, report, targets
from peers.measuring import TOOLS, measure, measure_growth
from peers.workloads import GROWTH, WORKLOADS

PACKAGES = ("far_ho_tf", "tensorflow", "jax", "torch", "higher", "torchopt", "betty-ml")
FLAGS = flags.FLAGS
flags.DEFINE_list(
    "workload", [*WORKLOADS, *GROWTH], "Which workloads, by number, and growths."
)
flags.DEFINE_list("tool", list(TOOLS), "Which tools.")
flags.DEFINE_integer("rounds", 5, "Measurements of each.", lower_bound=1)
flags.DEFINE_float(
    "most_seconds",
    60.0,
    "After so many, a configuration is not measured again, but three times at least.",
    lower_bound=1.0,
)
flags.DEFINE_string("output_dir", "benchmarks/results", "Where to write.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    for name, asked, known in (
        ("workload", FLAGS.workload, [*WORKLOADS, *GROWTH]),
        ("tool", FLAGS.tool, TOOLS),
    ):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            sys.exit(f"--{name} must be of {', '.join(known)}. Received: {unknown}")
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results = earlier(folder)
    how = FLAGS.tool, FLAGS.rounds, FLAGS.most_seconds
    for number, name in enumerate(FLAGS.workload, 1):
        print(f"{number}/{len(FLAGS.workload)}: {name}", flush=True)
        if name in GROWTH:
            results["growth"][name] = measure_growth(name, GROWTH[name], *how)
            print(report.growth_table(name, results["growth"][name]), flush=True)
        else:
            records = measure(name, *how)
            title = f"{name}: {WORKLOADS[name]().title}"
            results["workloads"][name] = {"title": title, "records": records}
            print(report.table(results["workloads"][name]), flush=True)
        dated(results, name)
        write(results, folder)  # After each: a run takes long.
    print(report.summary(results))
    print(f"\n{targets.text(results)}")


def write(results, folder):
    """Writes all that is known so far."""
    text = json.dumps(results, indent=1) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    tables = f"{report.document(results)}\n\n{targets.text(results)}\n"
    (folder / "tables.md").write_text(tables, encoding="utf-8")
    pictures.draw(results, folder)


def earlier(folder):
    """The results that lie in a folder, of this machine and these versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}"
    results = {"machine": f"{machine}; {versions}", "workloads": {}, "growth": {}}
    results["dates"] = {}
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return results
    return found if found["machine"] == results["machine"] else results


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def dated(results, name):
    """Notes the day, and puts what was measured in the order of the names."""
    results["dates"][name] = datetime.date.today().isoformat()
    for kind, names in (("workloads", WORKLOADS), ("growth", GROWTH)):
        results[kind] = {n: results[kind][n] for n in names if n in results[kind]}


if __name__ == "__main__":
    app.run(main)
