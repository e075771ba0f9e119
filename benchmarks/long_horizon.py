"""Memory and time of the gradient modes against T and against m; and the planner's.

Each figure comes from a process of its own, which computes a hypergradient twice: the
first time compiles, the second is measured. Memory is the growth of the peak of the
process during it. Predictions are those of `far.plan`. Prints Markdown tables, and
draws --picture.
"""

import gc
import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from absl import app, flags

import far_ho_tf as far
from far_ho_tf.prediction import predict

FLAGS = flags.FLAGS
flags.DEFINE_list("num_steps", ["100", "300", "1000", "3000"], "Steps T.")
flags.DEFINE_list("num_tangents", ["2", "8", "32", "128"], "Hyperparameters m.")
flags.DEFINE_string("picture", "docs/choosing_a_mode.png", "Where to draw.")
flags.DEFINE_string("child", None, "Measure this one, as JSON, and print it.")

MODES = {
    "full": far.ReverseHG(),
    "checkpointing='sqrt'": far.ReverseHG(checkpointing="sqrt"),
    "checkpointing=10": far.ReverseHG(checkpointing=10),
    "truncation=50": far.ReverseHG(truncation=50),
    "ReversibleHG": far.ReversibleHG(),
    "ForwardHG": far.ForwardHG(),
}
BATCH = 50


def mlp():
    """500-400-200-10, 282,610 weights."""
    layers = [keras.layers.Dense(400, "tanh"), keras.layers.Dense(200, "tanh"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((784,)), *layers])


def cnn():
    """Two strided convolutions and a layer, 19,050 weights."""
    layers = [
        keras.layers.Reshape((28, 28, 1)),
        keras.layers.Conv2D(16, 5, 2, activation="tanh"),
        keras.layers.Conv2D(32, 3, 2, activation="tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    return keras.Sequential([keras.Input((784,)), *layers])


def bilevel(model, count):
    """A problem with `count` hyperparameters: rate, momentum, weights of groups."""
    random = np.random.RandomState(0)
    x = random.randn(1000, 784).astype("float32")
    y = random.randint(0, 10, 1000)
    rate = far.Hyperparameter(0.01, name="rate")
    mass = far.Hyperparameter(0.9, name="mass")
    groups = far.Hyperparameter(tf.ones([max(1, count - 2)]), name="groups")

    def losses(batch):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], model(batch[0]))

    def inner(batch):
        group = batch[2] % groups.shape[0]
        weights = tf.gather(tf.convert_to_tensor(groups), group)
        return tf.reduce_mean(weights * losses(batch))

    return far.BilevelProblem(
        inner,
        lambda batch: tf.reduce_mean(losses(batch)),
        model,
        far.Momentum(rate, mass),
        [rate, mass] if count == 2 else [rate, mass, groups],
        inner_data=far.Batches((x, y, np.arange(1000)), BATCH, seed=0),
        outer_data=(x[:100], y[:100]),
    )


def measure(spec):
    """Peak memory (bytes) and seconds of a second run; what was predicted."""
    problem = bilevel({"mlp": mlp, "cnn": cnn}[spec["model"]](), spec["m"])
    mode, num_steps = MODES[spec["mode"]], spec["T"]
    predicted = predict(problem, num_steps, mode)
    mode.compute(problem, num_steps)
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, start = status("VmRSS"), time.perf_counter()
    result = mode.compute(problem, num_steps)
    return spec | {
        "seconds": time.perf_counter() - start,
        "memory": status("VmHWM") - before,
        "predicted": predicted.memory,
        "compiler": result.status.compiler,
    }


def status(field):
    """A field of Linux' account of this process, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise ValueError(f"No {field} here.")


def in_a_process(**spec):
    """`measure`, in a process whose allocator gives back what is freed."""
    freeing = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, __file__, f"--child={json.dumps(spec)}"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | freeing,
    )
    return json.loads(done.stdout.splitlines()[-1])


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def against_steps():
    """Modes × T, on the network with two hyperparameters."""
    row("mode", "T", "MB", "predicted", "off", "seconds", "compiler")
    row(*["---"] * 7)
    found = []
    for mode in MODES:
        for num_steps in map(int, FLAGS.num_steps):
            found.append(report(model="mlp", mode=mode, T=num_steps, m=2))
    return found


def report(**spec):
    one = in_a_process(**spec)
    row(
        spec["mode"],
        spec["T"] if spec["model"] == "mlp" else f"{spec['T']} ({spec['model']})",
        f"{one['memory'] / 1e6:.1f}",
        f"{one['predicted'] / 1e6:.1f}",
        f"{one['predicted'] / one['memory'] - 1:+.0%}",
        f"{one['seconds']:.2f}",
        one["compiler"],
    )
    return one


def against_tangents():
    """Forward and reverse × m, at T = 100."""
    row("mode", "m", "MB", "seconds")
    row(*["---"] * 4)
    found = []
    for mode in ("full", "ForwardHG"):
        for count in map(int, FLAGS.num_tangents):
            one = in_a_process(model="mlp", mode=mode, T=100, m=count)
            found.append(one)
            row(mode, count, f"{one['memory'] / 1e6:.1f}", f"{one['seconds']:.2f}")
    return found


def draw(by_steps, by_tangents):
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for column, (found, key, label) in enumerate(
        ((by_steps, "T", "steps T"), (by_tangents, "m", "hyperparameters m"))
    ):
        for mode in MODES:
            ones = [one for one in found if one["mode"] == mode]
            if not ones:
                continue
            x = [one[key] for one in ones]
            axes[0, column].plot(
                x, [one["memory"] / 1e6 for one in ones], "o-", label=mode
            )
            axes[1, column].plot(x, [one["seconds"] for one in ones], "o-", label=mode)
        for axis, unit in zip(axes[:, column], ("memory (MB)", "seconds"), strict=True):
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            axis.grid(alpha=0.3)
        axes[0, column].legend(fontsize="small")
    figure.savefig(FLAGS.picture, dpi=110)


def main(_):
    if FLAGS.child is not None:
        print(json.dumps(measure(json.loads(FLAGS.child))))
        return
    by_steps = against_steps()
    for mode in MODES:
        report(model="cnn", mode=mode, T=300, m=2)
    by_tangents = against_tangents()
    draw(by_steps, by_tangents)


if __name__ == "__main__":
    app.run(main)
