"""Memory and time of the gradient modes against T and against m; and the planner's.

Each figure comes from a process of its own, which computes a hypergradient twice: the
first time compiles, the second is measured. Memory is the growth of the peak of the
process during it. Predictions are those of `far.plan`. Prints a Markdown table, and
draws --picture. For Linux with glibc.
"""

import json
import os
import subprocess
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from absl import app, flags

import far_ho_tf as far
from far_ho_tf.planning.prediction import predict
from peak_memory import FREEING, growth
from problems import plain_training, seconds

FLAGS = flags.FLAGS
flags.DEFINE_list("num_steps", ["100", "500", "2000"], "Steps T.")
flags.DEFINE_list("num_tangents", ["2", "8", "32", "128"], "Hyperparameters m.")
flags.DEFINE_string("picture", "docs/choosing_a_mode.png", "Where to draw.")
flags.DEFINE_string("child", None, "Measure this one, as JSON, and print it.")

MODES = {
    "full": far.ReverseHG,
    "checkpointing='sqrt'": lambda **o: far.ReverseHG(checkpointing="sqrt", **o),
    "checkpointing=20": lambda **o: far.ReverseHG(checkpointing=20, **o),
    "memory_budget=100 MB": lambda **o: far.ReverseHG(memory_budget=10**8, **o),
    "truncation=50": lambda **o: far.ReverseHG(truncation=50, **o),
    "ReversibleHG": far.ReversibleHG,
    "ForwardHG": far.ForwardHG,
}
FEATURES, BATCH = 500, 50
COLUMNS = {
    "model": lambda one: one["model"],
    "compiler": lambda one: one["compiler"],
    "mode": lambda one: one["mode"],
    "T": lambda one: one["T"],
    "m": lambda one: one["m"],
    "MB": lambda one: f"{one['memory'] / 1e6:.1f}",
    "predicted": lambda one: f"{one['predicted'] / 1e6:.1f}",
    "off": lambda one: f"{one['predicted'] / one['memory'] - 1:+.0%}",
    "seconds": lambda one: f"{one['seconds']:.2f}",
    "training runs": lambda one: f"{one['runs']:.1f}",
    "predicted runs": lambda one: f"{one['predicted runs']:.1f}",
    "bits": lambda one: "" if one["bits"] is None else f"{one['bits']:.3f}",
}


def mlp():
    """500-400-200-10, 282,610 weights."""
    layers = [
        keras.layers.Dense(400, "tanh"),
        keras.layers.Dense(200, "tanh"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential([keras.Input((FEATURES,)), *layers])


def cnn():
    """Two strided convolutions and two layers, 163,978 weights."""
    layers = [
        keras.layers.Reshape((20, 25, 1)),
        keras.layers.Conv2D(32, 5, 2, padding="same", activation="tanh"),
        keras.layers.Conv2D(64, 3, 2, padding="same", activation="tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, "tanh"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential([keras.Input((FEATURES,)), *layers])


def bilevel(model, count):
    """A problem with `count` hyperparameters: rate, momentum, weights of groups."""
    random = np.random.RandomState(0)
    x = random.randn(1000, FEATURES).astype("float32")
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
        outer_data=(x[:BATCH], y[:BATCH]),
    )


def measure(spec):
    """A second run's peak memory in bytes, or seconds; and what was predicted."""
    problem = bilevel({"mlp": mlp, "cnn": cnn}[spec["model"]](), spec["m"])
    options = {"jit_compile": False} if spec["compiler"] == "graph" else {}
    mode, num_steps = MODES[spec["mode"]](**options), spec["T"]
    predicted = predict(problem.pure, num_steps, mode)
    result = mode.compute(problem, num_steps)  # Compiles.
    spec |= {
        "predicted runs": predicted.cost,
        "predicted": predicted.memory,
        "bits": result.status.buffer_bits,
        "compiler": result.status.compiler,
    }
    if spec.pop("watched"):
        return spec | {"memory": growth(lambda: mode.compute(problem, num_steps))}
    train = plain_training(problem, num_steps, spec["compiler"] == "xla")
    train()
    taken = seconds(lambda: mode.compute(problem, num_steps))
    return spec | {"seconds": taken, "runs": taken / seconds(train)}


def in_processes(**spec):
    """`measure`, timed in one process and watched in another; prints a row."""
    one = {}
    for watched, environment in ((False, {}), (True, FREEING)):
        done = subprocess.run(
            [
                *(sys.executable, __file__),
                f"--child={json.dumps(spec | {'watched': watched})}",
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | environment,
        )
        one |= json.loads(done.stdout.splitlines()[-1])
    row(*(cell(one) for cell in COLUMNS.values()))
    return one


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def draw(by_steps, by_tangents):
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    for column, (found, key, label) in enumerate(
        ((by_steps, "T", "steps T"), (by_tangents, "m", "hyperparameters m"))
    ):
        for index, mode in enumerate(MODES):
            ones = [one for one in found if one["mode"] == mode]
            x = [one[key] for one in ones]
            for axis, y in zip(
                axes[:, column],
                ([one["memory"] / 1e6 for one in ones], [one["runs"] for one in ones]),
                strict=True,
            ):
                axis.plot(x, y, "o-", label=mode, color=f"C{index}")
        for axis, unit in zip(
            axes[:, column], ("memory (MB)", "time (training runs)"), strict=True
        ):
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            axis.grid(alpha=0.3)
    axes[0, 0].set_title("Two hyperparameters")
    axes[0, 1].set_title("100 steps")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    figure.savefig(FLAGS.picture, dpi=110)


def main(_):
    if FLAGS.child is not None:
        print(json.dumps(measure(json.loads(FLAGS.child))))
        return
    row(*COLUMNS)
    row(*["---"] * len(COLUMNS))
    few = {"model": "mlp", "m": 2, "compiler": "auto"}
    by_steps = [
        in_processes(**few | {"mode": mode, "T": int(num_steps)})
        for mode in MODES
        for num_steps in FLAGS.num_steps
    ]
    by_tangents = [
        in_processes(**few | {"mode": mode, "T": 100, "m": int(count)})
        for mode in ("full", "ForwardHG")
        for count in FLAGS.num_tangents
    ]
    draw(by_steps, by_tangents)
    for model in ("mlp", "cnn"):
        for mode in MODES:
            in_processes(model=model, m=2, compiler="graph", mode=mode, T=200)


if __name__ == "__main__":
    app.run(main)
