"""The same arrays, initial weights and steps for all tools, in NumPy alone."""

import itertools
from typing import NamedTuple

import numpy as np

# In the name of a configuration: of the steps, it keeps no products.
STATES_ALONE = "states alone"


class Workload(NamedTuple):
    """One bilevel problem, and how its hypergradient is asked for.

    The inner objective is the mean of w[group] · cross-entropy over a batch, plus
    penalty · Σ weights²; the outer one is the mean cross-entropy on the validation
    examples. Networks have tanh units.

    Attributes:
        title: What the table says.
        network: "mlp", or "cnn": 3×3 convolutions, each with 2×2 max pooling, on
            28×28 pixels, and a dense layer.
        weights: List of float32 arrays: kernel, bias, kernel, ...
        train: Pair of float32 [n, features] and int32 [n].
        validation: The same.
        batches: int32 [T, batch], the examples of each step; `None` for all of them.
        groups: int32 [n], which of `hyperparameters["weights"]` an example has.
        hyperparameters: Mapping: "rate", "momentum" or "beta_1", "penalty", "weights".
        dynamics: "descent", "momentum" or "adam".
        num_steps: T.
        mode: "reverse", "checkpoints" (reverse, with fewer states than steps) or
            "forward".
    """

    title: str
    network: str
    weights: list
    train: tuple
    validation: tuple
    batches: np.ndarray | None
    groups: np.ndarray
    hyperparameters: dict
    dynamics: str
    num_steps: int
    mode: str = "reverse"


def mlp(
    title,
    sizes,
    batch,
    num_steps,
    mode="reverse",
    count=None,
    examples=None,
    adam=False,
):
    """A network of dense layers.

    Args:
        title: String.
        sizes: Tuple of integers.
        batch: Examples in a batch.
        num_steps: T.
        mode: See `Workload`.
        count: How many hyperparameters: rate (the only one of 1), momentum and weights
            of groups of examples; `None`: those two, the penalty and a weight for each
            example.
        examples: Of all batches; `None`: there is one batch.
        adam: Whether the dynamics are Adam's.
    """
    random = np.random.RandomState(0)
    total = examples or batch
    hyperparameters = {"rate": 1e-3, "beta_1": 0.9} if adam else {"rate": 0.05}
    if not adam and count != 1:
        hyperparameters["momentum"] = 0.9
    groups = np.arange(total, dtype=np.int32)
    if count is None:
        hyperparameters |= {"penalty": 1e-4, "weights": 0.5 + random.rand(total)}
    elif count > 2:
        hyperparameters["weights"] = 0.5 + random.rand(count - 2)
        groups %= count - 2
    batches = None
    if examples:
        batches = random.randint(0, examples, (num_steps, batch)).astype(np.int32)
    return Workload(
        title,
        "mlp",
        _dense(random, sizes),
        _examples(random, total, sizes),
        _examples(random, batch, sizes),
        batches,
        groups,
        {name: np.float32(value) for name, value in hyperparameters.items()},
        "adam" if adam else "descent" if count == 1 else "momentum",
        num_steps,
        mode,
    )


def cnn(title, filters, batch, num_steps):
    """Convolutions with max pooling."""
    random = np.random.RandomState(0)
    weights, channels, side = [], 1, 28
    for more in filters:
        kernel = random.randn(3, 3, channels, more) / np.sqrt(9 * channels)
        weights += [kernel.astype(np.float32), np.zeros(more, np.float32)]
        channels, side = more, side // 2
    weights += _dense(random, (side * side * channels, 10))
    return Workload(
        title,
        "cnn",
        weights,
        _examples(random, batch, (784, 10)),
        _examples(random, batch, (784, 10)),
        None,
        np.arange(batch, dtype=np.int32),
        {
            "rate": np.float32(0.05),
            "momentum": np.float32(0.9),
            "penalty": np.float32(1e-4),
            "weights": (0.5 + random.rand(batch)).astype(np.float32),
        },
        "momentum",
        num_steps,
    )


def cleaning(title, num_examples, num_steps):
    """Softmax regression, with a weight for each example; plain descent."""
    base = mlp(title, (784, 10), num_examples, num_steps)
    weights = base.hyperparameters["weights"]
    return base._replace(hyperparameters={"weights": weights}, dynamics="descent")


def growing(family, size):
    """One of the workloads whose costs are seen to grow.

    Args:
        family: "steps": of workload 2; "weights": of networks with two square layers,
            20 steps; "tangents": of workload 2 in forward mode, 100 steps.
        size: Integer: T, the number of weights (nearly), or m.
    """
    title = f"{family}: {size:,}"
    if family == "steps":
        return mlp(title, SMALL, 50, size)
    if family == "weights":
        side = round(np.sqrt(size))
        return mlp(title, (side // 2, side, side // 2), 100, 20)
    return mlp(title, SMALL, 50, 100, "forward", size)


def _dense(random, sizes):
    weights = []
    for before, after in itertools.pairwise(sizes):
        kernel = random.randn(before, after) / np.sqrt(before)
        weights += [kernel.astype(np.float32), np.zeros(after, np.float32)]
    return weights


def _examples(random, count, sizes):
    x = random.randn(count, sizes[0]).astype(np.float32)
    return x, random.randint(0, sizes[-1], count).astype(np.int32)


LARGE, SMALL = (784, 300, 300, 10), (20, 10, 2)

GROWTH = {
    "steps": (10, 100, 1000, 10_000),
    "weights": (10**3, 10**4, 10**5, 10**6, 10**7),
    "tangents": (1, 4, 16, 64, 256),
}


def of(name):
    """A workload by its name: of `WORKLOADS`, or as in "steps-100".

    A suffix as in "1@2" says how many steps it makes instead.
    """
    name, _, steps = name.partition("@")
    family, _, size = name.partition("-")
    workload = growing(family, int(size)) if family in GROWTH else WORKLOADS[name]()
    if not steps:
        return workload
    steps = int(steps)
    batches = workload.batches
    return workload._replace(
        num_steps=steps, batches=None if batches is None else batches[:steps]
    )


WORKLOADS = {
    "1": lambda: mlp("MLP 784-300-300-10, T = 100", LARGE, 100, 100),
    "2": lambda: mlp("MLP 20-10-2, T = 1,000", SMALL, 50, 1000),
    "3": lambda: cleaning("hyper-cleaning, 5,000 × 784, T = 100", 5000, 100),
    "4": lambda: cnn("CNN, max pooling, T = 50", (16, 32), 64, 50),
    "5": lambda: mlp(
        "MLP 784-300-300-10, Adam, minibatches, T = 100",
        *(LARGE, 100, 100),
        examples=10_000,
        adam=True,
    ),
    **{
        f"6-{number}-{count}": (
            lambda sizes=sizes, batch=batch, steps=steps, count=count: mlp(
                f"forward, m = {count}, {'-'.join(map(str, sizes))}, T = {steps:,}",
                *(sizes, batch, steps, "forward", count),
            )
        )
        for number, sizes, batch, steps in ((1, LARGE, 100, 100), (2, SMALL, 50, 1000))
        for count in (2, 8, 64)
    },
    "7-2": lambda: mlp(
        "MLP 20-10-2, T = 10,000, checkpoints", SMALL, 50, 10_000, "checkpoints"
    ),
    "7-1": lambda: mlp(
        "MLP 784-300-300-10, T = 2,000, checkpoints", LARGE, 100, 2000, "checkpoints"
    ),
}
