"""What replicas save: the work of each device, and the time of a hypergradient.

A batch is split over logical devices of the CPU, each with one thread. Counted are the
operations of one device in the gradient oracle, by TensorFlow's profiler. Measured are
a hypergradient whose batch is one device's share, and the whole of it; where there are
more devices than cores they wait for each other. Each row comes from a process of its
own; times are medians. Prints a Markdown table.
"""

import json
import os
import statistics
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import far_ho_tf as far
from problems import seconds

FLAGS = flags.FLAGS
flags.DEFINE_list("replicas", ["1", "2", "4"], "Numbers of logical devices.")
flags.DEFINE_integer("batch_size", 1024, "Of all replicas.", lower_bound=1)
flags.DEFINE_integer("num_steps", 5, "Steps T.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Of each measurement.", lower_bound=1)
flags.DEFINE_integer("child", None, "Measure this number of replicas, as JSON.")

SIZES = (784, 1000, 1000, 10)


def bilevel(batch_size):
    """784-1000-1000-10 on one full batch."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(size, activation="tanh") for size in SIZES[1:-1]]
    model = keras.Sequential(
        [keras.Input(SIZES[:1]), *layers, keras.layers.Dense(SIZES[-1])]
    )
    random = np.random.RandomState(0)
    data = (
        random.randn(batch_size, SIZES[0]).astype("float32"),
        random.randint(0, SIZES[-1], batch_size),
    )
    rate = far.Hyperparameter(0.05, name="rate")
    mass = far.Hyperparameter(0.9, name="mass")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def objective(batch):
        x, y = batch
        return loss(y, model(x))

    return far.BilevelProblem(
        objective, objective, model, far.Momentum(rate, mass), [rate, mass], data, data
    )


def operations(problem):
    """Multiplications and additions of one gradient, on the problem's batch."""
    batch = problem.pure.inner_data.prepare(0, 1)
    hyperparameters = [tf.convert_to_tensor(v) for v in problem.hyperparameters]
    oracle = tf.function(
        lambda batch: problem.pure.oracle(problem.pure.start, hyperparameters, batch)[
            0
        ],
        autograph=False,
    ).get_concrete_function(batch)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return tf.compat.v1.profiler.profile(oracle.graph, options=options).total_float_ops


def measure(count):
    """The figures of one row."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, count))
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    mode = far.ReverseHG(jit_compile=False)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])

    def median(problem, strategy):
        def call():
            mode.compute(problem, FLAGS.num_steps, strategy=strategy)

        call()
        return statistics.median(seconds(call) for _ in range(FLAGS.repeats))

    share = bilevel(FLAGS.batch_size // count)
    return {
        "operations": operations(share),
        "share": median(share, None),
        "whole": median(bilevel(FLAGS.batch_size), strategy),
    }


def main(argv):
    if FLAGS.child:
        print(json.dumps(measure(FLAGS.child)))
        return
    print("| replicas | operations of a device | its seconds | seconds in all |")
    print("|---|---|---|---|")
    for count in FLAGS.replicas:
        command = [sys.executable, *argv, f"--child={count}"]
        command += [
            f"--{name}={FLAGS[name].value}"
            for name in ("batch_size", "num_steps", "repeats")
        ]
        output = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ).stdout
        row = json.loads(output.splitlines()[-1])
        print(
            f"| {count} | {row['operations']:.3g} | {row['share']:.3f} "
            f"| {row['whole']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
