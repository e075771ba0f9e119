"""Which derivatives of TensorFlow and Keras are right, and what far_ho_tf does.

Each function of the table (`derivatives/table`) is differentiated at several points:
smooth ones, zeros, ties, complex numbers. First derivatives are compared with central
differences of the value, second ones with those of the first, as reverse over reverse
and forward over reverse, straight, in a loop and under XLA; and the hypergradient
through a short training run with differences of that run. It takes an hour or more, is
no part of the tests, and goes on where it was stopped: results are kept in a file, a
line for each.

    .venv/bin/python tools/derivative_sweep.py

writes docs/derivatives.md at its end, for the releases of TensorFlow and Keras that are
installed. `--only PATTERN` looks at some functions, `--again` anew.
"""

import fnmatch
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Parts of the sweep: with far_ho_tf imported the functions by themselves, in problems,
# and in a loop (at one point each); and TensorFlow as it is.
PARTS = ("operations", "problems", "plain", "loops")
FLAGS = flags.FLAGS
flags.DEFINE_string("results", "results/derivatives.jsonl", "File of the results.")
flags.DEFINE_string("document", str(ROOT / "docs/derivatives.md"), "What is written.")
flags.DEFINE_list("parts", list(PARTS), f"Of {', '.join(PARTS)}.")
flags.DEFINE_multi_string("only", ["*"], "Patterns of names: 'tf.linalg.*'.")
flags.DEFINE_bool("again", False, "Also where there is a result already.")
flags.DEFINE_integer("chunk", 100, "Functions to a process.", lower_bound=1)
flags.DEFINE_integer("limit", 120, "Seconds for one of them.", lower_bound=1)
flags.DEFINE_bool("report", True, "Write the document.")
flags.DEFINE_string("child", None, "For the processes themselves: a part.")


def main(argv):
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]
    from derivatives import processes

    results = pathlib.Path(FLAGS.results)
    if FLAGS.child:
        processes.work(FLAGS.child, argv[1:], results)
        return
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    if unknown := set(FLAGS.parts) - set(PARTS):
        raise app.UsageError(f"--parts: no such parts: {', '.join(sorted(unknown))}")
    from derivatives import document, table

    results.parent.mkdir(parents=True, exist_ok=True)
    names = [
        name
        for name in table.cases()
        if any(fnmatch.fnmatchcase(name.split(" @ ")[0], one) for one in FLAGS.only)
    ]
    for part in FLAGS.parts:
        done = {} if FLAGS.again else processes.read(results, part)
        left = [n for n in processes.of_part(part, names, results) if n not in done]
        print(f"{part}: {len(left)} are left", flush=True)
        while left:
            chunk, left = left[: FLAGS.chunk], left[FLAGS.chunk :]
            command = processes.command(part, results)
            processes.sweep(command, part, chunk, results, FLAGS.limit)
            print(f"{part}: {len(left)} are left", flush=True)
    if FLAGS.report:
        document.write(results, pathlib.Path(FLAGS.document))


if __name__ == "__main__":
    app.run(main)
