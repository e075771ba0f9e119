"""Two processes on 127.0.0.1, as `MultiWorkerMirroredStrategy` joins them."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import worker_run
from tests.helpers import relative_error

ROOT = pathlib.Path(__file__).parents[1]


def cluster(*arguments):
    """Starts two workers."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "worker_run.py", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                ),
            },
        )
        for index in range(2)
    ]


def finish(workers, timeout=240):
    """Waits for both; returns what they wrote to stderr."""
    said = [worker.communicate(timeout=timeout)[1] for worker in workers]
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of both workers, of runs that were not disturbed."""
    folder = tmp_path_factory.mktemp("workers")
    workers = cluster("all", folder)
    said = finish(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said
    return [dict(np.load(folder / f"all-{index}.npz")) for index in range(2)]


def test_hypergradients_are_those_of_one_device(whole):
    expected = worker_run.hypergradients(None)
    for name, values in expected.items():
        tolerance = 1e-5 if "float32" in name else 1e-10
        for index, value in enumerate(values):
            for worker in whole:
                found = worker[f"{name} {index}"]
                assert found.shape == np.shape(value)
                assert relative_error(found, value) <= tolerance, name


def test_both_workers_have_the_same(whole):
    assert set(whole[0]) == set(whole[1])
    for name, value in whole[0].items():
        np.testing.assert_array_equal(value, whole[1][name])


def test_a_worker_that_dies(whole, tmp_path):
    """The other says so within a minute; both go on from what they saved."""
    workers = cluster("stopped", tmp_path)
    for line in workers[1].stdout:
        if int(line) == 5:
            break
    workers[1].kill()
    begin = time.monotonic()
    _, said = workers[0].communicate(timeout=60)
    assert time.monotonic() - begin < 60
    workers[1].communicate()
    assert workers[0].returncode == 1
    assert "WorkerLostError: Another worker of the strategy has stopped" in said
    workers = cluster("stopped", tmp_path)
    begun = [int(workers[0].stdout.readline()) for _ in range(1)]
    said = finish(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert begun[0] >= 4
    for index in range(2):
        found = dict(np.load(tmp_path / f"stopped-{index}.npz"))
        assert found
        for name, value in found.items():
            np.testing.assert_array_equal(value, whole[index][name])


@pytest.mark.parametrize("what", ["other data", "other episodes", "other shards"])
def test_workers_with_other_data(what, tmp_path):
    workers = cluster(what, tmp_path)
    for said in finish(workers):
        assert "All workers must have the same" in said
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing(tmp_path):
    """Nothing is begun anew in silence, and what is there stays."""
    finish(cluster("short", tmp_path))
    saved = sorted((tmp_path / "short" / "worker-0").iterdir())
    assert saved
    shutil.rmtree(tmp_path / "short" / "worker-1")
    for said in finish(cluster("short", tmp_path)):
        assert "All workers must find what they saved" in said
        assert "last_savings_by_replica=[2, -1]" in said
    assert sorted((tmp_path / "short" / "worker-0").iterdir()) == saved
