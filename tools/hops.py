"""How many files of the package a `fit` passes through, and how often it changes file.

    .venv/bin/python -m tools.hops

A hop is a call of a function in another file of the package than the caller's. What
TensorFlow or Python's libraries call in between is not counted.
"""

import collections
import pathlib
import sys

import tensorflow as tf
from absl import app, flags

import far_ho_tf as far

FLAGS = flags.FLAGS
flags.DEFINE_bool("pairs", False, "List the pairs of files, most hops first.")
PACKAGE = str(pathlib.Path(far.__file__).parent) + "/"


def main(argv):
    del argv
    tuner = far.HyperOptimizer(_problem())
    for name in ("first", "second"):
        files, pairs = hops(lambda: tuner.fit(1, 10, verbose=0))
        print(f"{name} fit: {len(files)} files, {sum(pairs.values())} hops")
        for (caller, called), count in pairs.most_common() if FLAGS.pairs else ():
            print(f"  {count:4d} {caller} -> {called}")


def hops(function):
    """The files that a call passes through, and a counter of pairs of them."""
    files, pairs = set(), collections.Counter()

    def note(frame, event, argument):
        del argument
        called = _file(frame)
        if event != "call" or called is None:
            return
        files.add(called)
        before = _file(frame.f_back)
        if before is not None and before != called:
            pairs[before, called] += 1

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return files, pairs


def _file(frame):
    """The file of the package that a frame is in, or `None`."""
    name = frame.f_code.co_filename
    return name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else None


def _problem():
    x = tf.random.stateless_normal((64, 8), (1, 2))
    y = x[:, :1]
    w = tf.Variable(tf.zeros((8, 1)), name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    l2 = far.Hyperparameter(0.01, name="l2")

    def loss(batch):
        return tf.reduce_mean((batch[0] @ w - batch[1]) ** 2)

    return far.BilevelProblem(
        inner_objective=lambda batch: loss(batch) + l2 * tf.nn.l2_loss(w),
        outer_objective=loss,
        variables=[w],
        dynamics=far.Momentum(rate, 0.9),
        hyperparameters=[rate, l2],
        inner_data=far.Batches((x, y), batch_size=16, seed=0),
        outer_data=(x, y),
    )


if __name__ == "__main__":
    app.run(main)
