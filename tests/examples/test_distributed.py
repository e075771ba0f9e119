"""examples/distributed/run.py, as users start it."""

import json
import os
import select
import subprocess
import sys

import pytest

from tests.helpers import ROOT, relative_error, run_example

SHORT = (
    *("--hyper_iterations", "2", "--num_steps", "4", "--batch_size", "25"),
    *("--num_train", "100", "--num_validation", "101", "--verbose", "0"),
)


def tuned(folder, *flags):
    """The hyperparameters and the validation losses that results.json holds."""
    done = run_example("distributed", *SHORT, "--output_dir", folder, *flags)
    assert done.returncode == 0, done.stderr
    assert (folder / "curve.png").exists()
    results = json.loads((folder / "results.json").read_text())
    losses = results["history"]["outer_value"]
    return [*results["hyperparameters"].values(), *losses], done.stdout


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What is tuned without a strategy."""
    values, _ = tuned(tmp_path_factory.mktemp("none") / "made")
    assert values[0] != 0.02
    return values


@pytest.mark.thorough
def test_any_number_of_devices_gives_the_same(expected, tmp_path):
    found, said = tuned(tmp_path / "m", "--strategy", "mirrored", "--replicas", "3")
    assert "3 replicas" in said
    assert relative_error(found, expected) < 1e-5
    found, said = tuned(tmp_path / "o", "--strategy", "one_device")
    assert "1 replica," in said
    assert relative_error(found, expected) < 1e-6


def test_two_workers_give_the_same(expected, tmp_path):
    workers = ("--strategy", "multi_worker", "--workers", "2")
    checkpoints = ("--checkpoint_dir", str(tmp_path / "checkpoints"))
    found, said = tuned(tmp_path / "w", *workers, *checkpoints)
    assert "[worker 0] 2 replicas" in said
    assert "[worker 1] 2 replicas" in said
    assert relative_error(found, expected) < 1e-5
    folders = sorted(os.listdir(tmp_path / "checkpoints"))
    assert folders == ["worker-0", "worker-1"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--strategy", "mirrored", "--workers", "2"], "--workers is for"),
        (["--strategy", "multi_worker"], "TF_CONFIG"),
        (["--batch_size", "200", "--num_train", "100"], "--batch_size must not exceed"),
        (["--strategy", "horovod"], "one of <none|one_device|mirrored|multi_worker>"),
        (["--replicas", "0"], "--replicas=0"),
        (["--replicas", "3", "--strategy", "none"], "--replicas is for"),
    ],
)
def test_wrong_flags(flags, words, tmp_path):
    done = run_example("distributed", "--output_dir", tmp_path, *flags)
    assert done.returncode == 1
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "{bad",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_wrong_configuration(value, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", value)
    flags = ("--strategy", "multi_worker", "--output_dir", tmp_path)
    done = run_example("distributed", *flags)
    assert done.returncode == 1
    assert "TF_CONFIG must be JSON" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_checkpoint_of_another_run(tmp_path):
    flags = (*SHORT, "--output_dir", tmp_path / "o", "--checkpoint_dir", tmp_path / "c")
    assert run_example("distributed", *flags).returncode == 0
    done = run_example("distributed", *flags, "--seed", "1")
    assert done.returncode == 1
    assert "inner_data.seed=0" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "file").touch()
    done = run_example("distributed", *flags, "--checkpoint_dir", tmp_path / "file")
    assert done.returncode == 1
    assert "distributed/run.py: `directory` must be a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_end_with_their_launcher(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from examples.distributed import launcher\n"
        "if not launcher.is_worker():\n"
        "    sys.exit(launcher.launch(2))\n"
        "launcher.end_with_launcher()\n"
        "print('pid', os.getpid(), flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as launcher:
        lines = [launcher.stdout.readline() for _ in range(2)]
        workers = [os.pidfd_open(int(line.split()[-1])) for line in lines]
        launcher.kill()
    for worker in workers:  # Readable once it has ended.
        # A bound for one that goes on, far from what a loaded machine takes.
        assert select.select([worker], [], [], 1200)[0]
        os.close(worker)
