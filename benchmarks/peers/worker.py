"""Measures one tool on one workload, as `run.py` asks: one process for each.

    python worker.py TOOL CONFIGURATION WORKLOAD
    python worker.py TOOL list WORKLOAD

The second prints the names of the tool's configurations. The first reads commands, one
a line, and answers each with a line of JSON:
    prepare     the first hypergradient and the first training run; seconds of each
    hypergradient, train    seconds of one, the mean of as many as 0.2 s hold
    memory      bytes by which the peak of the process grows during a hypergradient
    held        bytes that the process holds
    values PATH writes the hypergradient to an .npz file
"""

import contextlib
import importlib
import json
import os
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from peak_memory import growth, held, resident
from peers import workloads

LEAST_SECONDS = 0.2
# That a process may hold while others are measured. To get less back takes time.
MOST_BYTES = 2e9


def seconds(call):
    """The mean duration of a call."""
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        taken = time.perf_counter() - start
        if taken > LEAST_SECONDS:
            return taken / count


def answers(hypergradient, train):
    """The commands' functions, by name."""

    def prepare():
        start = time.perf_counter()
        hypergradient()
        middle = time.perf_counter()
        train()
        return middle - start, time.perf_counter() - middle

    return {
        "prepare": prepare,
        "hypergradient": lambda: seconds(hypergradient),
        "train": lambda: seconds(train),
        "memory": lambda: growth(hypergradient),
        "held": held,
        "values": lambda path: np.savez(path, **hypergradient()),
    }


def main(tool, configuration, workload):
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What tools print is no answer.
    module = importlib.import_module(f"peers.with_{tool}")
    if configuration == "list":
        names = list(module.configurations(workloads.of(workload)))
        print(json.dumps(names), file=answer_to, flush=True)
        return
    if configuration == "reference":
        found = module.reference(workloads.of(workload))
        commands = {"values": lambda path: np.savez(path, **found)}
    else:
        make = module.configurations(workloads.of(workload))[configuration]
        commands = answers(*make())
    for line in sys.stdin:
        name, *arguments = line.split()
        answer = commands[name](*arguments)
        if resident() > MOST_BYTES:
            held()  # Gives back what others, who wait for their turns, need.
        print(json.dumps(answer), file=answer_to, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
