"""higher: `innerloop_ctx`, with the optimizer's numbers overridden by tensors."""

import functools

import higher
import torch

from peers.torch_parts import Parts


def configurations(workload):
    """Callables() -> (hypergradient, train), by name; the fastest counts."""
    if workload.mode == "forward":
        return {}
    return {"innerloop_ctx": functools.partial(_make, workload)}


class _Network(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList(weights)


def _make(workload):
    parts = Parts(workload)
    values = parts.hyperparameters
    rate = values.get("rate", torch.tensor(0.05))
    override = {"lr": [rate]}
    if workload.dynamics == "momentum":
        override["momentum"] = [values["momentum"]]
    if workload.dynamics == "adam":
        override["betas"] = [(values["beta_1"], 0.999)]

    def hypergradient():
        network = _Network([w.clone() for w in parts.weights])
        options = {"lr": 0.05}
        if workload.dynamics == "adam":
            optimizer = torch.optim.Adam(network.parameters(), eps=1e-7, **options)
        else:
            mass = 0.9 if workload.dynamics == "momentum" else 0.0
            optimizer = torch.optim.SGD(network.parameters(), momentum=mass, **options)
        with higher.innerloop_ctx(
            network, optimizer, override=override, track_higher_grads=True
        ) as (functional, differentiable):
            for step in range(workload.num_steps):
                weights = list(functional.parameters())
                differentiable.step(parts.inner(weights, values, step))
            loss = parts.outer(list(functional.parameters()))
            leaves = list(values.values())
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return parts.named(found)

    return hypergradient, parts.train
