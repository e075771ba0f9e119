"""Processes that are killed (SIGKILL) and begun again by the same command."""

import os
import random
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests import stopped_run
from tests.helpers import ROOT, in_tiers

# A run is killed within the first of them: about two iterations with their savings.
CALLS = 100_000


def run(*arguments):
    """Runs to its end, or to where it is killed."""
    return subprocess.run(
        [sys.executable, ROOT / "tests" / "stopped_run.py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("name", in_tiers(stopped_run.MODES, ["rtho"]))
def test_a_killed_run_ends_as_another(name, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"The places of the kills are drawn with seed {seed}.")
    draw = random.Random(seed)
    command = (name, tmp_path / "checkpoints", tmp_path / "result.npz")
    places = sorted(draw.sample(range(stopped_run.ITERATIONS // 2), 3))
    for place in places:
        killed = run(*command, place, draw.randrange(CALLS))
        assert killed.returncode == -signal.SIGKILL
    ended = run(*command)
    assert ended.returncode == 0
    begun = [int(line) for line in ended.stdout.split()]
    assert begun[0] >= places[-1]  # It did not begin from the start.
    assert begun == list(range(begun[0], stopped_run.ITERATIONS))
    keras.utils.clear_session(free_memory=False)
    expected = stopped_run.run(name)
    with np.load(tmp_path / "result.npz") as found:
        assert len(found) == len(expected)
        for mine, theirs in zip(found.values(), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
