"""What a reverse-mode hypergradient costs, in plain training runs.

Both are compiled the same way and run in turn. A run that recomputes each step
from its stored state cannot cost less than 11/3 plain runs (one step: 3 matrix
products a layer; its reverse: 8).
"""

import keras
import numpy as np
from absl import app, flags

import far_ho_tf as far
from problems import PROBLEMS, bilevel, plain_training, seconds

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs", 7, "Runs of each.", lower_bound=1)


def reverse(problem, num_steps, jit_compile):
    """One hypergradient."""
    mode = far.ReverseHG(jit_compile=jit_compile)

    def run():
        float(mode.compute(problem, num_steps).outer_value)

    return run


def main(_):
    row = "{:<28}{:<8}{:>9}{:>11}{:>8}".format
    print(row("problem", "", "plain", "reverse", "ratio"))
    for name in (
        "mlp 784-300-300-10, 100",
        "mlp 20-10-2, 50",
        "softmax 784-10, 5000",
        "cnn 28x28, 16 filters, 64",
    ):
        for jit_compile in (False, True):
            keras.utils.clear_session()
            problem, num_steps = bilevel(PROBLEMS[name])
            calls = [
                make(problem, num_steps, jit_compile)
                for make in (plain_training, reverse)
            ]
            for call in calls:
                call()
            times = [[seconds(call) for call in calls] for _ in range(FLAGS.runs)]
            plain, whole = np.median(times, axis=0)
            ratio = np.median([r / p for p, r in times])
            compiler = "xla" if jit_compile else "graph"
            print(
                row(name, compiler, f"{plain:.4f}", f"{whole:.4f}", f"{ratio:.2f}"),
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
