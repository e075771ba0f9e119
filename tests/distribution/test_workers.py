"""Two processes on 127.0.0.1, as `MultiWorkerMirroredStrategy` joins them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import worker_run
from tests.helpers import ROOT, in_tiers, relative_error

OTHERS = ["other data", "other episodes", "other shards"]
HELD = []


def free_address():
    """One whose port stays ours: it is held, and shared with the worker alone."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    HELD.append(holder)
    return f"127.0.0.1:{holder.getsockname()[1]}"


def cluster(*arguments):
    """Starts two workers."""
    addresses = [free_address() for _ in range(2)]
    return [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "worker_run.py", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TF_GRPC_REUSE_PORT": "true",
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


def finish(workers):
    """Waits for both; returns what they wrote to stdout and to stderr."""
    # A bound for those that hang, far from what they take on a loaded machine.
    written = [worker.communicate(timeout=1200) for worker in workers]
    return [list(streams) for streams in zip(*written, strict=True)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of both workers, of runs that were not disturbed."""
    folder = tmp_path_factory.mktemp("workers")
    workers = cluster("all", folder)
    _, said = finish(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said
    return [dict(np.load(folder / f"all-{index}.npz")) for index in range(2)]


@pytest.mark.thorough
def test_hypergradients_are_those_of_one_device(whole):
    expected = worker_run.hypergradients(None)
    for name, values in expected.items():
        tolerance = 1e-5 if "float32" in name else 1e-10
        for index, value in enumerate(values):
            for worker in whole:
                found = worker[f"{name} {index}"]
                assert found.shape == np.shape(value)
                assert relative_error(found, value) <= tolerance, name


@pytest.mark.thorough
def test_both_workers_have_the_same(whole):
    assert set(whole[0]) == set(whole[1])
    for name, value in whole[0].items():
        np.testing.assert_array_equal(value, whole[1][name])


@pytest.mark.thorough
def test_a_worker_that_dies(whole, tmp_path):
    """The other ends and says why; both go on from what they saved."""
    workers = cluster("killed", tmp_path)
    _, said = finish(workers)
    assert [worker.returncode for worker in workers] == [1, -signal.SIGKILL], said
    assert "WorkerLostError: Another worker of the strategy has stopped" in said[0]
    workers = cluster("stopped", tmp_path)
    begun, said = finish(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert int(begun[0].split()[0]) >= 4
    for index in range(2):
        found = dict(np.load(tmp_path / f"stopped-{index}.npz"))
        assert found
        for name, value in found.items():
            np.testing.assert_array_equal(value, whole[index][name])


@pytest.mark.parametrize("what", in_tiers(OTHERS, ["other data"]))
def test_workers_with_other_data(what, tmp_path):
    workers = cluster(what, tmp_path)
    _, both_said = finish(workers)
    for said in both_said:
        assert "All workers must have the same" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_folder_that_is_missing(tmp_path):
    """Nothing is begun anew in silence, and what is there stays."""
    finish(cluster("short", tmp_path))
    saved = sorted((tmp_path / "short" / "worker-0").iterdir())
    assert saved
    shutil.rmtree(tmp_path / "short" / "worker-1")
    _, both_said = finish(cluster("short", tmp_path))
    for said in both_said:
        assert "All workers must find what they saved" in said
        assert "last_savings_by_replica=[2, -1]" in said
    assert sorted((tmp_path / "short" / "worker-0").iterdir()) == saved
