"""What all PyTorch tools share: the network, the objectives and the data."""

import os

import numpy as np
import torch
from torch.nn import functional

torch.set_num_threads(os.cpu_count())


class Parts:
    """A workload's tensors and functions.

    Attributes:
        weights: List of tensors, kernels of convolutions as PyTorch has them.
        hyperparameters: Mapping from names to leaves that require gradients.
    """

    def __init__(self, workload):
        self._workload = workload
        self.weights = [_of(w) for w in workload.weights]
        if workload.network == "cnn":
            self.weights = [
                w.permute(3, 2, 0, 1).contiguous() if w.dim() == 4 else w
                for w in self.weights
            ]
        self.hyperparameters = {
            name: _of(value).requires_grad_()
            for name, value in workload.hyperparameters.items()
        }
        self._x, self._y = map(_of, workload.train)
        self._validation = tuple(map(_of, workload.validation))
        self._groups = _of(workload.groups)
        self._batches = None if workload.batches is None else _of(workload.batches)

    def inner(self, weights, values, step):
        """The inner objective on the batch of a step."""
        x, y, groups = self._x, self._y, self._groups
        if self._batches is not None:
            rows = self._batches[step]
            x, y, groups = x[rows], y[rows], groups[rows]
        losses = self._losses(weights, x, y)
        if "weights" in values:
            losses = values["weights"][groups] * losses
        loss = losses.mean()
        if "penalty" in values:
            loss = loss + values["penalty"] * sum((w * w).sum() for w in weights)
        return loss

    def outer(self, weights):
        """The outer objective."""
        return self._losses(weights, *self._validation).mean()

    def _losses(self, weights, x, y):
        if self._workload.network == "cnn":
            x = x.reshape(-1, 1, 28, 28)
            for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
                x = torch.tanh(functional.conv2d(x, kernel, bias, padding=1))
                x = functional.max_pool2d(x, 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
            weights = weights[-2:]
        *hidden, kernel, bias = weights
        for index in range(0, len(hidden), 2):
            x = torch.tanh(x @ hidden[index] + hidden[index + 1])
        return functional.cross_entropy(x @ kernel + bias, y, reduction="none")

    def update(self, state, gradients, values, step):
        """One step of the dynamics; a list of weights, then slots."""
        rate = values.get("rate", 0.05)
        weights, *slots = state
        if self._workload.dynamics == "descent":
            return [[w - rate * g for w, g in zip(weights, gradients, strict=True)]]
        if self._workload.dynamics == "momentum":
            velocity = [
                values["momentum"] * v + g
                for v, g in zip(slots[0], gradients, strict=True)
            ]
            moved = [w - rate * v for w, v in zip(weights, velocity, strict=True)]
            return [moved, velocity]
        one, two, epsilon = values["beta_1"], 0.999, 1e-7
        first = [
            one * m + (1 - one) * g for m, g in zip(slots[0], gradients, strict=True)
        ]
        second = [
            two * v + (1 - two) * g * g
            for v, g in zip(slots[1], gradients, strict=True)
        ]
        alpha = rate * (1 - two ** (step + 1)) ** 0.5 / (1 - one ** (step + 1))
        moved = [
            w - alpha * m / (torch.sqrt(v) + epsilon)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        return [moved, first, second]

    def initial(self):
        """The state before the first step: a list of weights, then slots."""
        number = {"descent": 0, "momentum": 1, "adam": 2}[self._workload.dynamics]
        zeros = [[torch.zeros_like(w) for w in self.weights] for _ in range(number)]
        return [[w.clone() for w in self.weights], *zeros]

    def train(self):
        """The plain training run; the outer objective at its end."""
        values = {name: h.detach() for name, h in self.hyperparameters.items()}
        state = self.initial()
        for step in range(self._workload.num_steps):
            weights = [w.requires_grad_() for w in state[0]]
            loss = self.inner(weights, values, step)
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                state = self.update([weights, *state[1:]], gradients, values, step)
        return float(self.outer(state[0]))

    def named(self, gradients):
        """Gradients, aligned with the hyperparameters, as arrays by name."""
        return {
            name: gradient.detach().numpy()
            for name, gradient in zip(self.hyperparameters, gradients, strict=True)
            if gradient is not None
        }


def _of(array):
    tensor = torch.from_numpy(np.array(array))
    return tensor if tensor.is_floating_point() else tensor.long()
