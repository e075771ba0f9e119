"""Processes that are killed (SIGKILL) and begun again by the same command."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tests import stopped_run

ROOT = pathlib.Path(__file__).parents[1]


def begin(*arguments):
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "stopped_run.py", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def kill(process, iteration, seconds):
    """Kills a process so long after it began a hyper-iteration."""
    with process:
        for line in process.stdout:
            if int(line) == iteration:
                break
        time.sleep(seconds)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", stopped_run.MODES)
def test_a_killed_run_ends_as_another(name, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"The places of the kills are drawn with seed {seed}.")
    draw = random.Random(seed)
    command = (name, tmp_path / "checkpoints", tmp_path / "result.npz")
    places = sorted(draw.sample(range(stopped_run.ITERATIONS // 2), 3))
    for place in places:
        kill(begin(*command), place, draw.uniform(0, 0.1))
    with begin(*command) as process:
        begun = [int(line) for line in process.stdout]
    assert process.returncode == 0
    assert begun[0] >= places[-1]  # It did not begin from the start.
    assert begun == list(range(begun[0], stopped_run.ITERATIONS))
    keras.utils.clear_session(free_memory=False)
    expected = stopped_run.run(name)
    with np.load(tmp_path / "result.npz") as found:
        assert len(found) == len(expected)
        for mine, theirs in zip(found.values(), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
