"""What later calls take beside an earlier state of the project.

Each measurement is a process of its own, of each state in turn, as where a process
comes to lie in memory counts for several percent: the ratio is that of the means over
processes of each one's median call. Each state is asked by its own `benchmarks/peers`,
as names inside the package change. The workloads are those of `make bench`, by number,
and "2@10" is a run of 10 steps, whose time is the fixed cost of a call. Beside them
stands the ratio of the medians of the first calls: of a hypergradient and of a training
run.

    git worktree add DIR COMMIT
    .bench/bin/python benchmarks/later_calls.py --checkout DIR

(`make .bench/installed` makes that environment.)
"""

import pathlib
import statistics
import sys

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from peers.asking import Worker
from peers.workloads import WORKLOADS

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_string("checkout", None, "A folder with another state of the project.")
flags.DEFINE_list("workload", [*WORKLOADS, "2@10"], "Which workloads.")
flags.DEFINE_integer("processes", 3, "Of each state.", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "Measurements in each of them.", lower_bound=1)
flags.mark_flag_as_required("checkout")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    unknown = [name for name in FLAGS.workload if not is_known(name)]
    if unknown or not FLAGS.workload:
        names = ", ".join(WORKLOADS)
        sys.exit(
            f"--workload must be of {names}, with or without @STEPS. Received: "
            f"{unknown or 'none'}"
        )
    states = {"then": pathlib.Path(FLAGS.checkout).absolute(), "now": ROOT}
    if not (FLAGS.checkout and (states["then"] / "far_ho_tf").is_dir()):
        sys.exit(f"--checkout holds no far_ho_tf. Received: {FLAGS.checkout}")
    print("workload   then, ms     now, ms   then / now   of the first calls")
    for workload in FLAGS.workload:
        first, later = {name: [] for name in states}, {name: [] for name in states}
        for turn in range(FLAGS.processes):
            measure(workload, states, turn % 2, first, later)
        then, now = (1000 * statistics.mean(later[name]) for name in states)
        waits = [statistics.median(first[name]) for name in states]
        print(
            f"{workload:<8} {then:>10.2f}  {now:>10.2f}   {then / now:>10.3f}"
            f"   {waits[0] / waits[1]:>10.2f}",
            flush=True,
        )


def is_known(name):
    """Whether there is such a workload, as in "2", or "2@10" for so many steps."""
    workload, at, steps = name.partition("@")
    counts = not at or (steps.isdecimal() and int(steps) > 0)
    return workload in WORKLOADS and counts


def measure(workload, states, begins, first, later):
    """One process of each state, asked in turn; adds seconds to two mappings."""
    order = list(states)[:: -1 if begins else 1]
    workers = {}
    try:
        for name in order:
            path = f"{states[name]}:{states[name] / 'benchmarks'}"
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "FAR_HO_TF_COMPILE_CACHE": ""}
            environment = {"PYTHONPATH": path} | quiet
            script = states[name] / "benchmarks/peers/worker.py"
            workers[name] = Worker("far", "auto", workload, environment, script)
            first[name].append(sum(workers[name].ask("prepare")))
        for name in order:
            workers[name].ask("hypergradient")
        found = {name: [] for name in order}
        for turn in range(FLAGS.rounds):
            for name in order[:: -1 if turn % 2 else 1]:
                found[name].append(workers[name].ask("hypergradient"))
    finally:
        for worker in workers.values():
            worker.close()
    for name in order:
        later[name].append(statistics.median(found[name]))


if __name__ == "__main__":
    app.run(main)
