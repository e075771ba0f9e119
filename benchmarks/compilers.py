"""Plain graph against XLA: time of one reverse-mode hypergradient.

Prints, for problems of several shapes, the seconds of a run after the first
under each compiler, their ratio, the first run's extra seconds (tracing and
compiling), and what `jit_compile="auto"` chooses. The two alternate, so that
the ratio holds on a noisy machine.
"""

import time

import keras
import numpy as np
from absl import app, flags

import far_ho_tf as far
from problems import PROBLEMS, bilevel

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "only", [], "Words in the names of the problems to run; all by default."
)
flags.DEFINE_integer("repeats", 5, "Runs under each compiler.", lower_bound=1)


def seconds(mode, problem, num_steps):
    start = time.perf_counter()
    float(mode.compute(problem, num_steps).outer_value)
    return time.perf_counter() - start


def main(_):
    row = "{:<28}{:>10}{:>8}{:>8}{:>11}{:>11}{:>9}  {}".format
    print(
        row(
            "problem",
            "products",
            "graph",
            "xla",
            "graph/xla",
            "graph 1st",
            "xla 1st",
            "auto",
        )
    )
    for name, make in PROBLEMS.items():
        if FLAGS.only and not any(part in name for part in FLAGS.only):
            continue
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        problem, num_steps = bilevel(make)
        modes = [far.ReverseHG(jit_compile=False), far.ReverseHG(jit_compile=True)]
        first = [seconds(mode, problem, num_steps) for mode in modes]
        times = [
            [seconds(mode, problem, num_steps) for mode in modes]
            for _ in range(FLAGS.repeats)
        ]
        graph, xla = np.median(times, axis=0)
        chosen = far.ReverseHG().compute(problem, num_steps).status.compiler
        report = problem.pure.report
        size = max(report.largest_product, report.largest_convolution)
        print(
            row(
                name,
                f"{size:,}",
                f"{graph:.4f}",
                f"{xla:.4f}",
                f"{np.median([g / x for g, x in times]):.2f}",
                f"{first[0] - graph:.1f}",
                f"{first[1] - xla:.1f}",
                chosen,
            ),
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
