"""A run of resuming/test_killed_runs.py: `stopped_run.py MODE FOLDER RESULT [PLACE]`.

PLACE is where it kills itself: a hyper-iteration, and a number of calls.
"""

import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far

ITERATIONS = 20
# Hypergradient, and arguments of `fit`.
MODES = {
    "reverse": (far.ReverseHG(), {"mode": "restart", "num_steps": 100}),
    "rtho": (far.ForwardHG(), {"mode": "online", "num_steps": 30}),
}


class Begun(keras.callbacks.Callback):
    """Prints which hyper-iteration begins."""

    def on_epoch_begin(self, epoch, logs=None):
        print(epoch, flush=True)


class Killed(keras.callbacks.Callback):
    """Kills the process so many calls after a hyper-iteration has begun.

    Calls of Python's and of C's functions: a place that is the same however fast
    the machine is, within an update as within a saving.
    """

    def __init__(self, iteration, calls):
        super().__init__()
        self.iteration, self.calls = iteration, calls

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self.iteration:  # A run that goes on may begin behind it.
            sys.setprofile(self.count)

    def count(self, frame, event, argument):
        self.calls -= event in ("call", "c_call")
        if self.calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def make_problem(rate, decay):
    """A network with BatchNorm and Dropout, on a dataset that shuffles anew."""
    random = np.random.RandomState(0)
    x = random.randn(60, 8).astype("float32")
    y = np.sin(x[:, :1])
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(32, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, kernel_regularizer=far.regularizers.L2(decay)),
        ]
    )

    def inner(batch):
        inputs, targets = batch
        loss = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
        return loss + sum(model.losses)

    train = tf.data.Dataset.from_tensor_slices((x[:40], y[:40]))
    return far.BilevelProblem(
        inner,
        lambda: tf.reduce_mean((model(x[40:]) - y[40:]) ** 2),
        model,
        far.Adam(rate),
        [rate, decay],
        inner_data=train.shuffle(40).batch(10).repeat(),
    )


def run(name, *callbacks):
    """Tunes; returns all that is left: hyperparameters, weights, history."""
    keras.utils.set_random_seed(0)
    hypergradient, arguments = MODES[name]
    rate = far.Hyperparameter(0.01, name="rate", constraint="non_neg")
    decay = far.Hyperparameter(0.01, name="decay", constraint="non_neg")
    problem = make_problem(rate, decay)
    tuner = far.HyperOptimizer(problem, hypergradient, keras.optimizers.Adam(1e-3))
    history = tuner.fit(ITERATIONS, callbacks=list(callbacks), verbose=0, **arguments)
    weights = [variable.numpy() for variable in problem.pure.owned]
    return [*tuner.get_weights(), *weights, *history.history.values()]


if __name__ == "__main__":
    name, folder, result, *place = sys.argv[1:]
    killed = [Killed(*map(int, place))] if place else []
    np.savez(result, *run(name, far.Checkpoint(folder), Begun(), *killed))
