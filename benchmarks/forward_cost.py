"""What forward mode costs, in plain training runs, and its peak memory.

The network is 784-300-300-10, tanh, one full batch of 100, momentum.
Hyperparameters: learning rate, momentum, and m − 2 weights of groups of
examples. Plain runs: the same steps compiled the same way, and Keras' own
`fit`. Memory: each number of steps in a process of its own.
"""

import json
import resource
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import far_ho_tf as far
from problems import plain_training, seconds

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs", 5, "Runs of each.", lower_bound=1)
flags.DEFINE_integer("num_steps", 50, "Steps T of a run.", lower_bound=1)
flags.DEFINE_integer("memory_of", 0, "Print the peak memory of so many steps.")

BATCH = 100


def network(sizes=(784, 300, 300, 10)):
    layers = [keras.layers.Dense(size, activation="tanh") for size in sizes[1:-1]]
    return keras.Sequential(
        [keras.Input((sizes[0],)), *layers, keras.layers.Dense(sizes[-1])]
    )


def examples():
    random = np.random.RandomState(0)
    x = random.randn(BATCH, 784).astype("float32")
    return x, random.randint(0, 10, BATCH)


def bilevel(count, model=None):
    """The problem with `count` hyperparameters."""
    model = model or network()
    rate = far.Hyperparameter(0.05, name="rate")
    mass = far.Hyperparameter(0.9, name="mass")
    groups = far.Hyperparameter(tf.ones([count - 2]), name="groups")
    group = tf.range(BATCH) % (count - 2)

    def losses(batch):
        x, y = batch
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))

    return far.BilevelProblem(
        lambda batch: tf.reduce_mean(tf.gather(groups.value, group) * losses(batch)),
        lambda batch: tf.reduce_mean(losses(batch)),
        model,
        far.Momentum(rate, mass),
        [rate, mass, groups],
        inner_data=examples(),
        outer_data=examples(),
    )


def keras_fit(num_steps):
    """Keras' own training, one full batch a step."""
    model = network()
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = examples()
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
    return lambda: model.fit(data, steps_per_epoch=num_steps, shuffle=False, verbose=0)


def memory_of(num_steps):
    """Prints the peak memory of one forward run, in MiB."""
    problem = bilevel(4, network((784, 32, 10)))
    far.ForwardHG(jit_compile=False).compute(problem, num_steps)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measured_memory(num_steps):
    command = [sys.executable, __file__, f"--memory_of={num_steps}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    if FLAGS.memory_of:
        memory_of(FLAGS.memory_of)
        return
    row = "{:>4}{:>8}{:>8}{:>11}{:>11}{:>11}{:>12}{:>12}".format
    print(
        row("m", "chunk", "", "plain", "keras fit", "forward", "/ plain", "/ keras fit")
    )
    fit = keras_fit(FLAGS.num_steps)
    for count, chunk_size in ((3, None), (8, None), (64, 8), (64, 16)):
        for jit_compile in (False, True):
            problem = bilevel(count)
            plain = plain_training(problem, FLAGS.num_steps, jit_compile)
            mode = far.ForwardHG(jit_compile, chunk_size)

            def forward(problem=problem, mode=mode):
                float(mode.compute(problem, FLAGS.num_steps).outer_value)

            calls = (plain, fit, forward)
            for call in calls:
                call()
            runs = FLAGS.runs if count < 64 else 1
            times = np.array([[seconds(call) for call in calls] for _ in range(runs)])
            medians = np.median(times, axis=0)
            ratios = np.median(times[:, 2:] / times[:, :2], axis=0)
            print(
                row(
                    count,
                    chunk_size or "-",
                    "xla" if jit_compile else "graph",
                    *(f"{value:.4f}" for value in medians),
                    *(f"{ratio:.1f}" for ratio in ratios),
                ),
                flush=True,
            )
    for num_steps in (100, 10_000):
        peak = measured_memory(num_steps)
        print(f"peak memory, m = 4, {num_steps:>6} steps: {peak:.0f} MiB")


if __name__ == "__main__":
    app.run(main)
