"""TorchOpt: functional optimizers whose learning rate is a tensor.

Momentum and β are Python numbers there: it has no derivative with respect to them.
"""

import functools

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

    def transformation():
        if workload.dynamics == "adam":
            betas = (float(values["beta_1"]), 0.999)
            return torchopt.adam(rate, betas=betas, eps=1e-7)
        mass = float(values["momentum"]) if workload.dynamics == "momentum" else 0.0
        return torchopt.sgd(rate, momentum=mass)

    def hypergradient():
        optimizer = torchopt.FuncOptimizer(transformation())
        weights = tuple(w.clone().requires_grad_() for w in parts.weights)
        for step in range(workload.num_steps):
            loss = parts.inner(list(weights), values, step)
            weights = optimizer.step(loss, weights)
        loss = parts.outer(list(weights))
        leaves = list(values.values())
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return parts.named(found)

    return hypergradient, parts.train
