"""examples/distributed.py, as users start it."""

import json
import os

import pytest

from tests.helpers import relative_error, run_example

SHORT = (
    *("--hyper_iterations", "2", "--num_steps", "4", "--batch_size", "25"),
    *("--num_train", "100", "--num_validation", "101", "--verbose", "0"),
)


def tuned(folder, *flags):
    """The hyperparameters and the validation losses that results.json holds."""
    done = run_example("distributed.py", *SHORT, "--output_dir", folder, *flags)
    assert done.returncode == 0, done.stderr
    assert (folder / "curve.png").exists()
    results = json.loads((folder / "results.json").read_text())
    losses = results["history"]["outer_value"]
    return [*results["hyperparameters"].values(), *losses], done.stdout


def test_any_number_of_devices_gives_the_same(tmp_path):
    expected, _ = tuned(tmp_path / "none")
    assert expected[0] != 0.02
    found, said = tuned(tmp_path / "m", "--strategy", "mirrored", "--replicas", "3")
    assert "3 replicas" in said
    assert relative_error(found, expected) < 1e-5
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
    ],
)
def test_wrong_flags(flags, words, tmp_path):
    done = run_example("distributed.py", "--output_dir", tmp_path, *flags)
    assert done.returncode == 1
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
