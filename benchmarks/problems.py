"""Problems of several shapes, which the benchmarks share."""

import time

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches.kernels import kernel_rewrites


def dense(sizes, batch, num_steps):
    """A tanh network on one full batch."""

    def make():
        layers = [keras.layers.Dense(size, activation="tanh") for size in sizes[1:-1]]
        model = keras.Sequential(
            [keras.Input((sizes[0],)), *layers, keras.layers.Dense(sizes[-1])]
        )
        return model, (sizes[0],), sizes[-1], batch, num_steps

    return make


def convolutional(side, filters, batch, num_steps):
    """Strided convolutions, which XLA gets right."""

    def make():
        model = keras.Sequential(
            [
                keras.Input((side, side, 1)),
                keras.layers.Conv2D(filters, 3, strides=2, activation="tanh"),
                keras.layers.Conv2D(2 * filters, 3, strides=2, activation="tanh"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        return model, (side, side, 1), 10, batch, num_steps

    return make


PROBLEMS = {
    "mlp 20-10-2, 50": dense((20, 10, 2), 50, 200),
    "mlp 64-32-10, 100": dense((64, 32, 10), 100, 100),
    "mlp 784-50-10, 100": dense((784, 50, 10), 100, 50),
    "mlp 784-300-300-10, 100": dense((784, 300, 300, 10), 100, 30),
    "mlp 784-300-300-10, 1000": dense((784, 300, 300, 10), 1000, 10),
    "mlp 1000-1000-1000-10, 100": dense((1000, 1000, 1000, 10), 100, 10),
    "mlp 784-64-10, 5000": dense((784, 64, 10), 5000, 20),
    "mlp 1000-1000-1000-10, 16": dense((1000, 1000, 1000, 10), 16, 10),
    "softmax 784-10, 100": dense((784, 10), 100, 100),
    "softmax 784-10, 500": dense((784, 10), 500, 100),
    "softmax 784-10, 2000": dense((784, 10), 2000, 50),
    "softmax 784-10, 5000": dense((784, 10), 5000, 20),
    "softmax 64-10, 1000": dense((64, 10), 1000, 100),
    "cnn 12x12, 4 filters, 16": convolutional(12, 4, 16, 50),
    "cnn 14x14, 8 filters, 32": convolutional(14, 8, 32, 50),
    "cnn 28x28, 4 filters, 16": convolutional(28, 4, 16, 50),
    "cnn 28x28, 8 filters, 32": convolutional(28, 8, 32, 20),
    "cnn 28x28, 16 filters, 64": convolutional(28, 16, 64, 20),
}


def bilevel(make):
    model, shape, classes, batch, num_steps = make()
    random = np.random.RandomState(0)
    data = (
        random.randn(batch, *shape).astype("float32"),
        random.randint(0, classes, batch),
    )
    rate = far.Hyperparameter(0.05, name="rate")
    mass = far.Hyperparameter(0.9, name="mass")
    weights = far.Hyperparameter(tf.ones(batch), name="weights")

    def losses(batch):
        x, y = batch
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))

    problem = far.BilevelProblem(
        inner_objective=lambda batch: tf.reduce_mean(weights * losses(batch)),
        outer_objective=lambda batch: tf.reduce_mean(losses(batch)),
        variables=model,
        dynamics=far.Momentum(rate, mass),
        hyperparameters=[rate, mass, weights],
        inner_data=data,
        outer_data=data,
    )
    return problem, num_steps


def plain_training(problem, num_steps, jit_compile):
    """The same steps without anything stored or differentiated."""
    hyperparameters = [tf.convert_to_tensor(v) for v in problem.hyperparameters]
    prepared = problem.pure.inner_data.prepare(0, num_steps)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def train(start, hyperparameters, prepared):
        def body(step, state):
            batch = problem.pure.inner_data.batch(prepared, step)
            return step + 1, problem.pure.step(state, hyperparameters, step, batch)[0]

        with kernel_rewrites(jit_compile):  # As the modes have them.
            state = problem.pure.initial_state(start, hyperparameters, tf.constant(0))
            _, state = tf.while_loop(
                lambda step, _: step < num_steps,
                body,
                (tf.constant(0), state),
                parallel_iterations=1,
                maximum_iterations=num_steps,
            )
        return state.variables

    def run():
        variables = train(problem.pure.start, hyperparameters, prepared)
        return [variable.numpy() for variable in variables]

    return run


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
