"""Betty: derivatives by what the inner objective reads, through best responses.

It has none by the learning rate, momentum or β. Its implicit problems take the final
weights for a minimum; its iterative one unrolls.
"""

import functools
import logging
import math

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.problems import ImplicitProblem, IterativeProblem

from peers.torch_parts import Parts


def configurations(workload):
    """Callables() -> (hypergradient, train), by name; the fastest counts."""
    if not _read(workload):
        return {}
    return {
        "IterativeProblem": functools.partial(
            _make, workload, IterativeProblem, Config(first_order=False)
        ),
        **{
            f"ImplicitProblem, {kind}": functools.partial(
                _make, workload, ImplicitProblem, Config(), kind
            )
            for kind in ("darts", "neumann", "cg")
        },
    }


def _read(workload):
    """The names of those hyperparameters that the inner objective reads."""
    names = [n for n in workload.hyperparameters if n in ("penalty", "weights")]
    return names if workload.mode == "reverse" else []


def _make(workload, base, outer_config, kind="darts"):
    logging.getLogger("betty").disabled = True
    parts = Parts(workload)
    names = _read(workload)
    steps = workload.num_steps
    found = {}

    class Inner(base):
        def get_batch(self):
            return self._count - 1

        def training_step(self, batch):
            if workload.dynamics == "adam":
                # It adds epsilon to the corrected root, others to the root itself.
                epsilon = 1e-7 / math.sqrt(1 - 0.999 ** (batch + 1))
                self.optimizer.param_groups[0]["eps"] = epsilon
            values = {n: h.detach() for n, h in parts.hyperparameters.items()}
            values |= dict(zip(names, self.outer.module, strict=True))
            return parts.inner(list(self.trainable_parameters()), values, batch)

    class Outer(ImplicitProblem):
        def get_batch(self):
            return None

        def training_step(self, batch):
            return parts.outer(list(self.inner.trainable_parameters()))

        def optimizer_step(self):
            found.update(zip(names, [h.grad for h in self.module], strict=True))

    def hypergradient():
        module = torch.nn.ParameterList([w.clone() for w in parts.weights])
        inner = Inner(
            "inner",
            Config(type=kind, unroll_steps=steps, retain_graph=True),
            module,
            _optimizer(workload, module),
        )
        leaves = [parts.hyperparameters[name].detach() for name in names]
        outer = Outer("outer", outer_config, torch.nn.ParameterList(leaves))
        engine = Engine(
            [inner, outer],
            EngineConfig(train_iters=steps, valid_step=steps + 1),
            {"l2u": {inner: [outer]}, "u2l": {outer: [inner]}},
        )
        engine.run()
        return {name: gradient.detach().numpy() for name, gradient in found.items()}

    return hypergradient, parts.train


def _optimizer(workload, module):
    number = {name: float(h.mean()) for name, h in workload.hyperparameters.items()}
    rate = number.get("rate", 0.05)
    if workload.dynamics == "adam":
        betas = number["beta_1"], 0.999
        return torch.optim.Adam(module, lr=rate, betas=betas, eps=1e-7)
    return torch.optim.SGD(module, lr=rate, momentum=number.get("momentum", 0.0))
