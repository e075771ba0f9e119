"""Dynamics and hyperparameters, each with its rule for the unrolled reference.

A row makes, for a `Classification` problem, the dynamics, the list of their
hyperparameters, and the rule.
"""

import keras
import numpy as np
import tensorflow as tf

import far_ho_tf as far
from tests import reference, rules
from tests.reference import constant

NUM_STEPS = 7
ADAM = {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
RMSPROP = {"learning_rate": 0.02, "rho": 0.8, "momentum": 0.5, "epsilon": 1e-3}
MOMENTUM = {"learning_rate": 0.1, "momentum": 0.9}
FTRL = {
    "learning_rate": 0.2,
    "learning_rate_power": -0.6,
    "l1_regularization_strength": 0.002,
    "l2_regularization_strength": 0.02,
    "l2_shrinkage_regularization_strength": 0.03,
    "beta": 0.1,
}
ADAFACTOR = {
    "learning_rate": 0.2,
    "beta_2_decay": -0.8,
    "epsilon_1": 1e-4,
    "epsilon_2": 0.4,
    "clip_threshold": 0.9,
}
LION = {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9}

optimizers = keras.optimizers
# The optimizer, its numbers (in the order of the rule's arguments), options, rule.
KERAS = {
    "SGD": (optimizers.SGD, {"learning_rate": 0.1}, {}, reference.gradient_descent),
    "momentum": (optimizers.SGD, MOMENTUM, {}, rules.sgd),
    "Nesterov": (optimizers.SGD, MOMENTUM, {"nesterov": True}, rules.sgd),
    "RMSprop": (optimizers.RMSprop, RMSPROP, {}, rules.rmsprop),
    "centered RMSprop": (
        optimizers.RMSprop,
        RMSPROP,
        {"centered": True},
        rules.rmsprop,
    ),
    "Adam": (optimizers.Adam, ADAM, {}, rules.adam),
    "AMSGrad": (optimizers.Adam, ADAM, {"amsgrad": True}, rules.adam),
    "AdamW": (optimizers.AdamW, ADAM | {"weight_decay": 0.3}, {}, rules.adam),
    "Adagrad": (
        optimizers.Adagrad,
        {"learning_rate": 0.1, "epsilon": 1e-3},
        {"initial_accumulator_value": 0.125},
        rules.adagrad,
    ),
    "Adadelta": (
        optimizers.Adadelta,
        {"learning_rate": 0.8, "rho": 0.8, "epsilon": 1e-3},
        {},
        rules.adadelta,
    ),
    "Adamax": (
        optimizers.Adamax,
        {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
        {},
        rules.adamax,
    ),
    "Nadam": (optimizers.Nadam, ADAM, {}, rules.nadam),
    "Ftrl": (optimizers.Ftrl, FTRL, {"initial_accumulator_value": 0.125}, rules.ftrl),
    "Lion": (optimizers.Lion, LION, {}, rules.lion),
    "Adafactor": (optimizers.Adafactor, ADAFACTOR, {}, rules.adafactor),
    "Lamb": (optimizers.Lamb, ADAM, {}, rules.lamb),
}


def by_step(vector):
    """A schedule that reads a vector of hyperparameters."""
    return lambda step: tf.convert_to_tensor(vector)[step]


def _scalars(problem):
    rate = problem.hyper(0.3, "rate")
    return far.GradientDescent(rate), [rate], reference.gradient_descent(constant(rate))


def _momentum(problem, nesterov=False):
    rate, mass = problem.hyper(0.2, "rate"), problem.hyper(0.8, "mass")
    rule = reference.momentum(constant(rate), constant(mass), nesterov)
    return far.Momentum(rate, mass, nesterov=nesterov), [rate, mass], rule


def _nesterov(problem):
    return _momentum(problem, nesterov=True)


def _adam(problem):
    hypers = [
        problem.hyper(value, name)
        for value, name in ((0.05, "a"), (0.8, "b1"), (0.95, "b2"), (1e-3, "e"))
    ]
    rule = reference.adam(*(constant(hyper) for hyper in hypers))
    return far.Adam(*hypers), hypers, rule


def _adamw(problem):
    values = (("a", 0.05), ("d", 0.2), ("b1", 0.8), ("b2", 0.95), ("e", 1e-3))
    hypers = {name: problem.hyper(value, name) for name, value in values}
    rate, decay, *others = (constant(hyper) for hyper in hypers.values())
    rule = rules.adam(rate, *others, decay=decay)
    return far.AdamW(*hypers.values()), list(hypers.values()), rule


def _rmsprop(problem):
    hypers = [
        problem.hyper(value, name)
        for value, name in ((0.02, "a"), (0.8, "rho"), (0.5, "mass"), (1e-3, "e"))
    ]
    rule = rules.rmsprop(*(constant(hyper) for hyper in hypers))
    return far.RMSprop(*hypers), hypers, rule


def _momentum_by_step(problem):
    steps = np.arange(NUM_STEPS)
    rates = problem.hyper(0.1 + 0.02 * steps, "rates")
    masses = problem.hyper(0.9 - 0.05 * steps, "masses")
    rule = reference.momentum(
        lambda t, i: tf.convert_to_tensor(rates)[t],
        lambda t, i: tf.convert_to_tensor(masses)[t],
    )
    return far.Momentum(by_step(rates), by_step(masses)), [rates, masses], rule


def _adam_by_step(problem):
    rates = problem.hyper(0.02 + 0.01 * np.arange(NUM_STEPS), "rates")
    betas = problem.hyper(0.9 - 0.05 * np.arange(NUM_STEPS), "betas")
    rule = reference.adam(
        lambda t, i: tf.convert_to_tensor(rates)[t],
        lambda t, i: tf.convert_to_tensor(betas)[t],
        constant(np.array(0.99, problem.dtype)),
        constant(np.array(1e-3, problem.dtype)),
    )
    dynamics = far.Adam(by_step(rates), by_step(betas), beta_2=0.99, epsilon=1e-3)
    return dynamics, [rates, betas], rule


def _momentum_by_variable(problem):
    """Pairs: a layer with a scalar, variables with a scalar and a schedule."""
    first, second = problem.model.layers
    one = problem.hyper(0.1, "one")
    steps = problem.hyper(0.2 + 0.01 * np.arange(NUM_STEPS), "steps")
    mass = problem.hyper(0.7, "mass")
    dynamics = far.Momentum(
        [(first, one), (second.kernel, by_step(steps)), (second.bias, 0.25)], mass
    )
    rule = reference.momentum(
        lambda t, i: {2: steps[t], 3: np.array(0.25, problem.dtype)}.get(
            i, tf.convert_to_tensor(one)
        ),
        constant(mass),
    )
    return dynamics, [one, steps, mass], rule


def _adam_by_pattern(problem):
    second = problem.model.layers[1]
    one, two = problem.hyper(0.1, "one"), problem.hyper(0.02, "two")
    dynamics = far.Adam(
        {f"{second.name}/": two, ".*/kernel": one, ".*": 0.03}, epsilon=1e-3
    )
    rates = [one, np.array(0.03, problem.dtype), two, two]
    numbers = [np.array(n, problem.dtype) for n in (0.9, 0.999, 1e-3)]
    rule = reference.adam(
        lambda t, i: tf.convert_to_tensor(rates[i]), *(constant(n) for n in numbers)
    )
    return dynamics, [one, two], rule


def _rate_per_weight(problem):
    kernel = problem.model.layers[0].kernel
    rates = problem.hyper(0.1 + np.random.RandomState(3).rand(*kernel.shape), "rates")
    dynamics = far.GradientDescent([(kernel, rates), (problem.model, 0.2)])
    rule = reference.gradient_descent(
        lambda t, i: tf.convert_to_tensor(
            rates if i == 0 else np.array(0.2, problem.dtype)
        )
    )
    return dynamics, [rates], rule


def _table(problem):
    rates = problem.hyper(np.linspace(0.1, 0.3, 4), "rates")
    return far.Schedule(rates, every=2), [rates], lambda t, i: rates[t // 2]


def _transformed(problem):
    logs = problem.hyper(np.linspace(-2.0, -1.0, NUM_STEPS), "logs")
    return (
        far.Schedule(logs, transform=tf.exp),
        [logs],
        lambda t, i: tf.exp(logs[t]),
    )


def _by_layer(problem):
    """The two layers of the network: variables 0 and 1, 2 and 3."""
    rates = problem.hyper(np.linspace(0.1, 0.3, 2 * NUM_STEPS).reshape(-1, 2), "rates")
    return (
        far.Schedule(rates, problem.model.layers),
        [rates],
        lambda t, i: rates[t, i // 2],
    )


def _by_variables(problem):
    """Kernels, and biases."""
    rates = problem.hyper(np.linspace(0.1, 0.3, 2 * NUM_STEPS).reshape(-1, 2), "rates")
    weights = problem.model.weights
    return (
        far.Schedule(rates, [weights[::2], weights[1::2]]),
        [rates],
        lambda t, i: rates[t, i % 2],
    )


def _exponential(problem):
    first, rate = problem.hyper(0.3, "first"), problem.hyper(0.5, "rate")
    steps = problem.hyper(3.0, "steps")
    return (
        far.Schedule.exponential(first, steps, rate),
        [first, steps, rate],
        lambda t, i: first * tf.pow(tf.convert_to_tensor(rate), float(t) / steps),
    )


def _inverse_time_by_layer(problem):
    first = problem.hyper([0.3, 0.2], "first")
    rate = problem.hyper(0.5, "rate")
    return (
        far.Schedule.inverse_time(first, 2, rate, problem.model.layers),
        [first, rate],
        lambda t, i: first[i // 2] / (1 + rate * (t / 2)),
    )


def _cosine(problem):
    first, alpha = problem.hyper(0.3, "first"), problem.hyper(0.25, "alpha")
    steps = problem.hyper(5.0, "steps")

    def rate(t, i):
        wave = (1 + tf.cos(np.pi * t / steps)) / 2 if t < 5 else 0.0
        return first * (alpha + (1 - alpha) * wave)

    return far.Schedule.cosine(first, steps, alpha), [first, steps, alpha], rate


def _of_keras(name):
    """All numbers of an optimizer, wrapped."""
    kind, numbers, options, rule = KERAS[name]

    def make(problem):
        hypers = [problem.hyper(value, key) for key, value in numbers.items()]
        dynamics = far.KerasDynamics(
            kind(**options), dict(zip(numbers, hypers, strict=True))
        )
        return dynamics, hypers, rule(*map(constant, hypers), **options)

    return make


def _around(options, name, value, wrap):
    """What Keras does around the steps of SGD, with a number of its own."""

    def make(problem):
        hypers = [problem.hyper(0.3, "rate"), problem.hyper(value, name)]
        numbers = dict(zip(("learning_rate", name), hypers, strict=True))
        dynamics = far.KerasDynamics(optimizers.SGD(**options), numbers)
        rule = reference.gradient_descent(constant(hypers[0]))
        return dynamics, hypers, wrap(rule, constant(hypers[1]))

    return make


def _by_schedule(make_schedule):
    """Momentum whose learning rate is a `far.Schedule`."""

    def make(problem):
        schedule, hypers, rate = make_schedule(problem)
        rule = reference.momentum(rate, lambda t, i: np.array(0.5, problem.dtype))
        return far.Momentum(schedule, 0.5), hypers, rule

    return make


OURS = {
    "GradientDescent": _scalars,
    "Momentum": _momentum,
    "Nesterov": _nesterov,
    "Adam": _adam,
    "AdamW": _adamw,
    "RMSprop": _rmsprop,
    "Momentum by step": _momentum_by_step,
    "Adam by step": _adam_by_step,
    "Momentum by variable": _momentum_by_variable,
    "Adam by pattern": _adam_by_pattern,
    "a rate per weight": _rate_per_weight,
}
SCHEDULES = {
    "table": _table,
    "transformed table": _transformed,
    "table by layer": _by_layer,
    "table by variables": _by_variables,
    "exponential": _exponential,
    "inverse time by layer": _inverse_time_by_layer,
    "cosine": _cosine,
}
# Of what takes all variables together, clipping by the norm of all is in
# dynamics/keras/test_numbers.py, backtracking in dynamics/test_backtracking.py.
AROUND = {
    "clipnorm": _around({}, "clipnorm", 0.2, rules.by_norm),
    "clipvalue": _around({}, "clipvalue", 0.03, rules.by_value),
    "averages": _around(
        {"use_ema": True, "ema_overwrite_frequency": 3},
        "ema_momentum",
        0.7,
        lambda rule, mass: rules.averaged(rule, mass, 3),
    ),
}
ROWS = {
    **OURS,
    **{f"schedule: {name}": _by_schedule(make) for name, make in SCHEDULES.items()},
    **{f"Keras: {name}": _of_keras(name) for name in KERAS},
    **{f"Keras: {name}": make for name, make in AROUND.items()},
}
