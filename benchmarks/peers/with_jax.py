"""JAX: `lax.scan` over the steps, differentiated by `grad` or `jacfwd`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from peers.workloads import STATES_ALONE

_ADAM = {"beta_2": 0.999, "epsilon": 1e-7}
_STATES = f", {STATES_ALONE} (checkpoint of each step)"


def configurations(workload):
    """Callables() -> (hypergradient, train), by name; the fastest counts."""
    modes = {
        "reverse": {
            f"scan{_STATES if steps else ''}, unroll {unroll}": (
                False,
                steps,
                unroll,
            )
            for steps in (False, True)
            for unroll in (1, 8)
        },
        "checkpoints": {
            f"scans of √T steps, checkpoint{more}, unroll {unroll}": (
                True,
                bool(more),
                unroll,
            )
            for more in ("", _STATES)
            for unroll in (1, 8)
        },
        "forward": {
            f"scan, unroll {unroll}": (False, False, unroll) for unroll in (1, 8)
        },
    }
    return {
        name: functools.partial(_make, workload, *how)
        for name, how in modes[workload.mode].items()
    }


def reference(workload):
    """The hypergradient in float64."""
    jax.config.update("jax_enable_x64", True)
    mode = "reverse" if workload.mode == "checkpoints" else workload.mode
    hypergradient, _ = _make(workload._replace(mode=mode), True, True, 1, np.float64)
    return hypergradient()


def _make(workload, segments, steps, unroll, dtype=np.float32):
    """With checkpoints of segments of √T steps, and of single steps, or not."""

    def cast(tree):
        return jax.tree.map(
            lambda a: jnp.asarray(a, dtype if a.dtype == np.float32 else a.dtype), tree
        )

    values = cast(workload.hyperparameters)
    start, train, validation = cast(
        (workload.weights, workload.train, workload.validation)
    )
    groups = jnp.asarray(workload.groups)
    batches = None if workload.batches is None else jnp.asarray(workload.batches)
    # Arguments, since what a compiled function captures is folded into it.
    constants = start, train, validation, groups, batches

    def final(values, constants):
        start, train, validation, groups, batches = constants
        step = functools.partial(_step, workload, values, train, groups)
        if steps:
            step = jax.checkpoint(step)
        state = _initial(workload, start)
        data = jnp.arange(workload.num_steps), batches
        if segments:
            state = _scan_of_scans(step, state, data, workload.num_steps, unroll)
        else:
            state, _ = jax.lax.scan(step, state, data, unroll=unroll)
        losses = _losses(workload, state[0], *validation)
        return jnp.mean(losses)

    derivative = jax.jacfwd if workload.mode == "forward" else jax.grad
    differentiate = jax.jit(derivative(final))
    run = jax.jit(final)

    def hypergradient():
        found = differentiate(values, constants)
        return {name: np.asarray(one) for name, one in found.items()}

    return hypergradient, lambda: float(run(values, constants))


def _scan_of_scans(step, state, steps, num_steps, unroll):
    length = math.isqrt(num_steps)
    while num_steps % length:
        length -= 1

    @jax.checkpoint
    def segment(state, steps):
        return jax.lax.scan(step, state, steps, unroll=unroll)

    segments = jax.tree.map(lambda a: a.reshape(-1, length, *a.shape[1:]), steps)
    return jax.lax.scan(segment, state, segments)[0]


def _initial(workload, weights):
    zeros = jax.tree.map(jnp.zeros_like, weights)
    slots = {"descent": (), "momentum": (zeros,), "adam": (zeros, zeros)}
    return weights, *slots[workload.dynamics]


def _step(workload, values, train, groups, state, what):
    number, rows = what
    x, y = train
    if rows is not None:
        x, y, groups = x[rows], y[rows], groups[rows]
    weights, *slots = state
    gradients = jax.grad(
        lambda weights: _inner(workload, values, weights, x, y, groups)
    )(weights)
    rate = values.get("rate", jnp.asarray(0.05, x.dtype))
    if workload.dynamics == "descent":
        return (jax.tree.map(lambda w, g: w - rate * g, weights, gradients),), None
    if workload.dynamics == "momentum":
        velocity = jax.tree.map(
            lambda v, g: values["momentum"] * v + g, slots[0], gradients
        )
        return (
            jax.tree.map(lambda w, v: w - rate * v, weights, velocity),
            velocity,
        ), None
    one, two = values["beta_1"], jnp.asarray(_ADAM["beta_2"], x.dtype)
    first = jax.tree.map(lambda m, g: one * m + (1 - one) * g, slots[0], gradients)
    second = jax.tree.map(lambda v, g: two * v + (1 - two) * g * g, slots[1], gradients)
    power = number.astype(x.dtype) + 1
    alpha = rate * jnp.sqrt(1 - two**power) / (1 - one**power)
    weights = jax.tree.map(
        lambda w, m, v: w - alpha * m / (jnp.sqrt(v) + _ADAM["epsilon"]),
        *(weights, first, second),
    )
    return (weights, first, second), None


def _inner(workload, values, weights, x, y, groups):
    losses = _losses(workload, weights, x, y)
    if "weights" in values:
        losses = values["weights"][groups] * losses
    loss = jnp.mean(losses)
    if "penalty" in values:
        loss += values["penalty"] * sum(jnp.sum(w * w) for w in weights)
    return loss


def _losses(workload, weights, x, y):
    if workload.network == "cnn":
        x = x.reshape(-1, 28, 28, 1)
        for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jnp.tanh(x + bias)
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        x = x.reshape(len(x), -1)
        weights = weights[-2:]
    *hidden, kernel, bias = weights
    for index in range(0, len(hidden), 2):
        x = jnp.tanh(x @ hidden[index] + hidden[index + 1])
    log_p = jax.nn.log_softmax(x @ kernel + bias)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
