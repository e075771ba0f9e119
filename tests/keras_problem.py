"""A small problem for Keras' optimizers, and optimizers that do more than to step."""

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from tests import reference

optimizers = keras.optimizers
NUM_STEPS = 6


class Small:
    """One layer of six weights on eight examples, and a penalty."""

    def __init__(self, dtype="float64"):
        random = np.random.RandomState(0)
        self.dtype = dtype
        x, y = random.randn(16, 3).astype(dtype), random.randn(16, 2).astype(dtype)
        self.train, self.validation = (x[:8], y[:8]), (x[8:], y[8:])
        self.model = keras.Sequential(
            [
                keras.Input((3,), dtype=dtype),
                keras.layers.Dense(2, activation="tanh", dtype=dtype),
            ]
        )
        self.start = [
            (0.5 * random.randn(*w.shape)).astype(dtype) for w in self.model.weights
        ]
        self.model.set_weights(self.start)
        self.penalty = far.Hyperparameter(0.05, dtype=dtype, name="penalty")

    def loss(self, batch):
        x, y = batch
        return tf.reduce_mean(tf.square(self.model(x) - y))

    def inner(self, batch):
        kernel = tf.convert_to_tensor(self.model.weights[0])
        return self.loss(batch) + self.penalty * tf.reduce_sum(tf.square(kernel))

    def bilevel(self, dynamics, hypers=(), **options):
        return far.BilevelProblem(
            self.inner,
            self.loss,
            self.model,
            dynamics,
            [*hypers, self.penalty],
            inner_data=self.train,
            outer_data=self.validation,
            **options,
        )

    def unrolled(self, rule, hypers, num_steps=NUM_STEPS):
        return reference.unrolled(
            {
                "inner": self.inner,
                "outer": self.loss,
                "variables": self.model.trainable_variables,
                "hyperparameters": [*hypers, self.penalty],
                "batch": lambda t: self.train,
                "outer_batch": self.validation,
            },
            rule,
            num_steps,
        )

    def by_keras(self, optimizer, num_steps):
        """Weights after a plain training loop; then the model is put back."""
        variables = self.model.trainable_variables
        optimizer.build(variables)
        for _ in range(num_steps):
            with tf.GradientTape() as tape:
                value = self.inner(self.train)
            optimizer.apply(tape.gradient(value, variables), variables)
        weights = self.model.get_weights()
        self.model.set_weights(self.start)
        return weights


SCHEDULE = optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
FEATURES = {
    "weight decay": lambda: optimizers.SGD(0.1, 0.9, weight_decay=0.5),
    "a schedule": lambda: optimizers.Adam(SCHEDULE),
    "a schedule in Adafactor": lambda: optimizers.Adafactor(SCHEDULE),
    "clipnorm": lambda: optimizers.Adam(0.05, clipnorm=0.2),
    "global_clipnorm": lambda: optimizers.Adam(0.05, global_clipnorm=0.2),
    "clipvalue": lambda: optimizers.SGD(0.1, 0.9, clipvalue=0.1),
    "no norm at all": lambda: optimizers.SGD(0.1, 0.9, clipnorm=0.0),
    "no norm of all": lambda: optimizers.SGD(0.1, 0.9, global_clipnorm=-1.0),
    "no value": lambda: optimizers.SGD(0.1, 0.9, clipvalue=-1.0),
    "averages": lambda: optimizers.SGD(
        0.1, 0.9, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4
    ),
}
