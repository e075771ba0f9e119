"""PyTorch by hand: the unrolled graph, hypertorch's `reverse`, and `torch.func`.

hypertorch is not on PyPI. Its `reverse` keeps the states, and on the way back makes
each step again and pulls the cotangents through it; written anew here from that
description (Grazzi et al. 2020, Algorithm "reverse").
"""

import functools

import torch

from peers.torch_parts import Parts


def configurations(workload):
    """Callables() -> (hypergradient, train), by name; the fastest counts."""
    if workload.mode == "forward":
        return {"torch.func.jacfwd": functools.partial(_make, workload, _forward)}
    return {
        "unrolled by hand": functools.partial(_make, workload, _unrolled),
        "hypertorch's reverse": functools.partial(_make, workload, _reverse),
    }


def _make(workload, differentiate):
    parts = Parts(workload)
    return lambda: differentiate(workload, parts), parts.train


def _step(parts, state, values, step, create_graph):
    loss = parts.inner(state[0], values, step)
    gradients = torch.autograd.grad(loss, state[0], create_graph=create_graph)
    return parts.update(state, gradients, values, step)


def _unrolled(workload, parts):
    values = parts.hyperparameters
    state = parts.initial()
    state[0] = [w.requires_grad_() for w in state[0]]
    for step in range(workload.num_steps):
        state = _step(parts, state, values, step, create_graph=True)
    loss = parts.outer(state[0])
    return parts.named(torch.autograd.grad(loss, list(values.values())))


def _reverse(workload, parts):
    values = parts.hyperparameters
    leaves = list(values.values())
    states = [parts.initial()]
    for step in range(workload.num_steps):
        state = _leaves(states[-1])
        state = _step(parts, state, values, step, create_graph=False)
        states.append([[t.detach() for t in part] for part in state])
    last = _leaves(states.pop())
    cotangents = list(torch.autograd.grad(parts.outer(last[0]), last[0]))
    cotangents += [torch.zeros_like(t) for part in last[1:] for t in part]
    totals = [torch.zeros_like(leaf) for leaf in leaves]
    for step in reversed(range(workload.num_steps)):
        state = _leaves(states.pop())
        flat = [t for part in state for t in part]
        after = _step(parts, state, values, step, create_graph=True)
        found = torch.autograd.grad(
            [t for part in after for t in part],
            flat + leaves,
            grad_outputs=cotangents,
            allow_unused=True,
        )
        cotangents = [
            torch.zeros_like(t) if g is None else g
            for t, g in zip(flat, found, strict=False)
        ]
        totals = [
            total if gradient is None else total + gradient
            for total, gradient in zip(totals, found[len(flat) :], strict=True)
        ]
    return parts.named(totals)


def _forward(workload, parts):
    values = {name: h.detach() for name, h in parts.hyperparameters.items()}

    def final(values):
        state = parts.initial()
        for step in range(workload.num_steps):
            gradients = torch.func.grad(parts.inner)(state[0], values, step)
            state = parts.update(state, gradients, values, step)
        return parts.outer(state[0])

    return parts.named(torch.func.jacfwd(final)(values).values())


def _leaves(state):
    return [[t.detach().requires_grad_() for t in part] for part in state]
