"""TorchOpt: functional optimizers whose learning rate is a tensor.

Momentum and β are Python numbers there: it has no derivative with respect to them.
"""

import functools
import math

import torch
import torchopt

from peers.torch_parts import Parts


def configurations(workload):
    """Callables() -> (hypergradient, train), by name; the fastest counts."""
    if workload.mode == "forward":
        return {}
    return {"functional optimizer": functools.partial(_make, workload)}


def _make(workload):
    parts = Parts(workload)
    values = parts.hyperparameters
    rate = values.get("rate", torch.tensor(0.05))
    mass = values["momentum"].item() if workload.dynamics == "momentum" else 0.0

    def adam(step):
        betas = values["beta_1"].item(), 0.999
        # It adds epsilon to the corrected root, others to the root itself.
        epsilon = 1e-7 / math.sqrt(1 - betas[1] ** (step + 1))
        return torchopt.adam(rate, betas=betas, eps=epsilon)

    def hypergradient():
        weights = tuple(w.clone().requires_grad_() for w in parts.weights)
        # One for all steps: each new one takes its first step for the run's.
        descent = torchopt.sgd(rate, momentum=mass)
        optimizer = adam if workload.dynamics == "adam" else lambda step: descent
        state = optimizer(0).init(weights)
        for step in range(workload.num_steps):
            loss = parts.inner(list(weights), values, step)
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            updates, state = optimizer(step).update(
                gradients, state, params=weights, inplace=False
            )
            weights = torchopt.apply_updates(weights, updates, inplace=False)
        loss = parts.outer(list(weights))
        leaves = list(values.values())
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return parts.named(found)

    return hypergradient, parts.train
