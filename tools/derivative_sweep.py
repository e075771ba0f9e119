"""Which derivatives of TensorFlow and Keras are right, and what far_ho_tf does.

Each function of the table (`derivatives/table`) is differentiated at several points:
smooth ones, zeros, ties, complex numbers. First derivatives are compared with central
differences of the value, second ones with those of the first, as reverse over reverse
and forward over reverse, straight, in a loop and under XLA; and the hypergradient
through a short training run with differences of that run. It takes an hour or more, is
no part of the tests, and goes on where it was stopped: results are kept in a file, a
line for each.

    .venv/bin/python tools/derivative_sweep.py --results results/derivatives.jsonl

writes docs/derivatives.md at its end, for the releases of TensorFlow and Keras that are
installed. `--only PATTERN` looks at some functions, `--again` anew.
"""

import fnmatch
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
# Parts of the sweep: with far_ho_tf imported the functions by themselves, in a loop (at
# one point each), in problems; and TensorFlow as it is.
PARTS = ("operations", "loops", "problems", "plain")
FLAGS = flags.FLAGS
flags.DEFINE_string("results", "results/derivatives.jsonl", "File of the results.")
flags.DEFINE_string("document", str(ROOT / "docs/derivatives.md"), "What is written.")
flags.DEFINE_list("parts", list(PARTS), f"Of {', '.join(PARTS)}.")
flags.DEFINE_string("only", "*", "Pattern of names: 'tf.linalg.*'.")
flags.DEFINE_bool("again", False, "Also where there is a result already.")
flags.DEFINE_integer("chunk", 40, "Functions to a process.", lower_bound=1)
flags.DEFINE_integer("limit", 120, "Seconds for one of them.", lower_bound=1)
flags.DEFINE_bool("report", True, "Write the document.")
flags.DEFINE_string("child", None, "For the processes themselves: a part.")


def main(argv):
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]
    if FLAGS.child:
        work(FLAGS.child, argv[1:], pathlib.Path(FLAGS.results))
        return
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    results = pathlib.Path(FLAGS.results)
    results.parent.mkdir(parents=True, exist_ok=True)
    names = [n for n in _cases() if fnmatch.fnmatchcase(n.split(" @ ")[0], FLAGS.only)]
    for part in FLAGS.parts:
        done = {} if FLAGS.again else read(results, part)
        left = [name for name in _of_part(part, names, results) if name not in done]
        print(f"{part}: {len(left)} are left", flush=True)
        while left:
            chunk, left = left[: FLAGS.chunk], left[FLAGS.chunk :]
            sweep(part, chunk, results)
            print(f"{part}: {len(left)} are left", flush=True)
    if FLAGS.report:
        from derivatives import document  # noqa: PLC0415 (it imports TensorFlow)

        document.write(results, pathlib.Path(FLAGS.document))


def _cases():
    from derivatives import table  # noqa: PLC0415

    return table.cases()


def _of_part(part, names, results):
    """Those cases that a part looks at.

    A loop at the first point of each row; problems and TensorFlow as it is where there
    is a derivative.
    """
    if part == "operations":
        return names
    if part == "loops":
        first = {}
        for name in names:
            first.setdefault(name.split(" @ ")[0], name)
        return list(first.values())
    found = read(results, "operations")
    return [n for n in names if _has_derivative(found.get(n, {}).get("checks", {}))]


def _has_derivative(checks):
    """Whether differences tell of no kink, nor of a function that gives no value."""
    if "row" in checks:
        return False
    return checks.get("differences", {}).get("status") != "kink"


def versions():
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}


def read(results, part):
    """{case: result} of these releases; the last line of a case counts."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {
        line["case"]: line
        for line in lines
        if line["part"] == part and line["versions"] == versions()
    }


def note(results, part, case, checks, seconds=0.0):
    line = {
        "part": part,
        "case": case,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 2),
        "checks": checks,
    }
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def sweep(part, names, results):
    """Checks cases in one process, and those that end it once more by themselves."""
    while names:
        ended, begun = _process(part, names, results)
        if ended is None:
            return
        rest = names[names.index(begun) + 1 :] if begun in names else []
        if len(names) > 1 and begun in names:
            print(f"{begun}: {ended}; once more by itself", flush=True)
            sweep(part, [begun], results)
        else:
            for name in [begun] if begun in names else names:
                note(results, part, name, {"process": {"status": ended}})
        names = rest


def _process(part, names, results):
    """Runs a process; returns why it ended too early, and at which case."""
    command = [sys.executable, __file__, f"--child={part}", f"--results={results}"]
    process = subprocess.Popen(
        [*command, "--", *names], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.set_blocking(process.stdout.fileno(), False)
    begun, since = None, time.monotonic()
    while True:
        line = process.stdout.readline()
        if line:
            begun, since = line.rstrip("\n"), time.monotonic()
        elif process.poll() is not None:
            code = process.returncode
            return (None if code == 0 else f"the process ended with {code}"), begun
        elif time.monotonic() - since > FLAGS.limit:
            process.kill()
            process.wait()
            return f"took more than {FLAGS.limit} s", begun
        else:
            time.sleep(0.05)


def work(part, names, results):
    """Checks cases in this process; tells of each before it begins."""
    if part != "plain":
        import far_ho_tf  # noqa: F401, PLC0415
    from derivatives import checks, table  # noqa: PLC0415

    rows = table.rows()
    for name in names:
        print(name, flush=True)
        start = time.process_time()
        row, point = name.split(" @ ")
        found = checks.check(part, rows[row], point)
        note(results, part, name, found, time.process_time() - start)


if __name__ == "__main__":
    app.run(main)
