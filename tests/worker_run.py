"""One of two workers of distribution/test_workers.py: `worker_run.py WHAT FOLDER`."""

import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification

ITERATIONS = 12
MODES = {
    "reverse": far.ReverseHG(jit_compile=False),
    "reverse, XLA": far.ReverseHG(jit_compile=True),
    "checkpointing": far.ReverseHG(checkpointing=2, truncation=4, jit_compile=False),
    "forward": far.ForwardHG(jit_compile=False),
    "spread tangents": far.ForwardHG(jit_compile=False, spread_tangents=True),
}


def minibatches(dtype="float64", **options):
    """Batches of 7 examples, with Dropout."""
    setting = Classification(dtype)
    dropout = keras.layers.Dropout(0.2, seed=5, dtype=dtype)
    plain = setting.inner
    setting.inner = lambda batch: plain((dropout(batch[0], training=True), *batch[1:]))
    rate = setting.hyper(0.1, "rate")
    data = far.Batches(setting.train, batch_size=7, seed=1)
    return setting.bilevel(
        far.Momentum(rate, 0.9), [rate], **({"inner_data": data} | options)
    )


def hypergradients(strategy):
    """What each mode computes; a mapping to lists of arrays."""
    found = {}
    for dtype, modes in (("float64", MODES), ("float32", ["reverse", "forward"])):
        problem = minibatches(dtype)
        for name in modes:
            result = MODES[name].compute(problem, 6, strategy=strategy)
            found[f"{name}, {dtype}"] = [result.outer_value, *result.hypergradients]
    problem = minibatches()
    tuner = far.HyperOptimizer(problem, MODES["forward"], "sgd", strategy)
    for _ in range(3):
        result = tuner.run(2, mode="online")
    found["RTHO"] = [*tuner.get_weights(), *result.hypergradients]
    return found | tasks(strategy)


def tasks(strategy):
    """The means over episodes, and over three problems."""
    setting = Classification()
    tensors = [tf.constant(array) for array in setting.train]

    def data(step, episode):
        places = (tf.range(5) * (episode + 2) + step) % 12
        return tuple(tf.gather(tensor, places) for tensor in tensors)

    problem = setting.bilevel(far.GradientDescent(0.1), inner_data=data)
    episodes = far.HyperOptimizer(problem, MODES["reverse"], "sgd", strategy)
    one = episodes.run(4, episodes=3)
    settings = [Classification(seed=seed) for seed in range(3)]
    for other in settings:
        other.weights, other.penalty = setting.weights, setting.penalty
    problems = [other.bilevel(far.GradientDescent(0.1)) for other in settings]
    tuner = far.HyperOptimizer(problems, MODES["reverse"], "sgd", strategy)
    two = tuner.run(4, mode="online")
    two = tuner.run(4, mode="online")
    return {
        name: [result.outer_values, result.inner_values, *result.hypergradients]
        for name, result in (("episodes", one), ("problems", two))
    }


class Begun(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print(epoch, flush=True)


class Killed(keras.callbacks.Callback):
    """Kills the process when hyper-iteration 5 has begun."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)


def others(what, index, strategy):
    """Workers of which the second has other data: each of these is refused."""
    if what == "other data":
        Classification.num_examples -= index
        return MODES["reverse"].compute(minibatches(), 2, strategy=strategy)
    setting = Classification()
    if what == "other shards":  # Whose losses are equal at weights of zero.
        for weight in setting.model.weights:
            weight.assign(tf.zeros_like(weight))
        shard = tuple(array[index::2] for array in setting.train)
        problem = setting.bilevel(far.GradientDescent(0.1), inner_data=shard)
        return MODES["reverse"].compute(problem, 2, strategy=strategy)
    tensors = [tf.constant(array) for array in setting.train]

    def data(step, episode):
        return tuple(tf.gather(tensor, tf.range(5) + index) for tensor in tensors)

    problem = setting.bilevel(far.GradientDescent(0.1), inner_data=data)
    tuner = far.HyperOptimizer(problem, MODES["reverse"], "sgd", strategy)
    return tuner.run(2, episodes=2)


def tuned(strategy, folder, *callbacks, iterations=ITERATIONS, num_steps=60):
    """A run with checkpoints; all that it leaves."""
    with strategy.scope():
        problem = minibatches()
        adam = keras.optimizers.Adam(0.01)
        tuner = far.HyperOptimizer(problem, MODES["reverse"], adam, strategy)
    callbacks = [far.Checkpoint(folder), Begun(), *callbacks]
    history = tuner.fit(iterations, num_steps, callbacks=callbacks, verbose=0)
    state = [*tuner.get_weights(), *problem.variables, *history.history.values()]
    return {"tuned": state}


def save(found, path):
    flat = {
        f"{name} {index}": np.asarray(value)
        for name, values in found.items()
        for index, value in enumerate(values)
    }
    np.savez(path, **flat)


if __name__ == "__main__":
    what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = strategy.cluster_resolver.task_id
    if what == "all":
        found = hypergradients(strategy) | tuned(strategy, folder / "whole")
    elif what.startswith("other"):
        found = {"": others(what, index, strategy).hypergradients}
    elif what == "short":
        tuned(strategy, folder / "short", iterations=2, num_steps=3)
        found = {}
    else:
        killed = [Killed()] if what == "killed" and index else []
        found = tuned(strategy, folder / "stopped", *killed)
    save(found, folder / f"{what}-{index}.npz")
    os._exit(0)  # Without TensorFlow's goodbyes, which may wait for the other.
