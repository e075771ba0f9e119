"""The folder of a `far.Checkpoint`: nothing but its own files is touched."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import keras
import pytest

import far_ho_tf as far
from tests.helpers import ROOT
from tests.resuming.test_checkpoint import anew, diverging, fit, same, state_of


@pytest.fixture(name="saved")
def _saved(tmp_path):
    """A folder with two savings, beside another one with a file."""
    folder = tmp_path / "run"
    fit(anew(diverging), 2, callbacks=[far.Checkpoint(folder)])
    other = tmp_path / "other"
    other.mkdir()
    for name in ("ckpt-1.index", "ckpt-1.data-00000-of-00001", "model.index"):
        (other / name).write_text("precious")
    return folder


@pytest.mark.parametrize(
    "path", ["../other/ckpt-1", "ABSOLUTE", "../run/../other/ckpt-1"]
)
@pytest.mark.parametrize(
    "name", ["all_model_checkpoint_paths", "model_checkpoint_path"]
)
def test_a_record_that_leads_outside(path, name, saved):
    """As the oldest, TensorFlow would remove it."""
    path = path.replace("ABSOLUTE", str(saved.parent / "other" / "ckpt-1"))
    record = (saved / "checkpoint").read_text().splitlines()
    record = [line for line in record if not line.startswith("all_model")]
    if name == "model_checkpoint_path":
        record = record[1:]
    record.insert(0, f'{name}: "{path}"')
    (saved / "checkpoint").write_text("\n".join(record))
    with pytest.raises(
        far.CheckpointError, match=r"of its own folder alone.*other/ckpt"
    ):
        far.Checkpoint(saved)
    kept = {one.name: one.read_text() for one in (saved.parent / "other").iterdir()}
    assert set(kept.values()) == {"precious"}
    assert len(kept) == 3


def test_a_record_of_other_files_in_the_folder(saved):
    text = (saved / "checkpoint").read_text().replace("ckpt-1", "model-1")
    (saved / "checkpoint").write_text(text)
    with pytest.raises(far.CheckpointError, match="of its own folder alone"):
        far.Checkpoint(saved)


def linked(tmp_path, name):
    """A folder with a link of a name, and the file that it leads to."""
    target = tmp_path / "target"
    target.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(target)
    return folder, target


def test_a_link_where_it_tries_to_write(tmp_path):
    """Whether it can is tried under a name that nobody can foresee."""
    folder, target = linked(tmp_path, "writable")
    fit(anew(diverging), 1, callbacks=[far.Checkpoint(folder)])
    assert target.read_text() == "precious"
    assert [one.name for one in folder.iterdir() if "writable-" in one.name] == []


def test_a_link_for_the_lock(tmp_path):
    folder, target = linked(tmp_path, "lock")
    with pytest.raises(OSError, match="lock"):
        fit(anew(diverging), 1, callbacks=[far.Checkpoint(folder)])
    assert target.read_text() == "precious"


def test_what_killed_writes_have_left(saved):
    """Also what a kill left between the data and the record of them."""
    left = [
        *("ckpt-3.index", "ckpt-3.data-00000-of-00001", "checkpoint.tmp0a1b2c"),
        *("ckpt-2.index.tempstate123", "ckpt-3.data-00000-of-00001.tempstate9"),
    ]
    for name in left:
        (saved / name).write_text("")
    (saved / "ckpt-3_temp").mkdir()
    (saved / "ckpt-3_temp" / "part-00000-of-00001.index").write_text("")
    others = ["notes.txt", "my-ckpt-3.index", "ckpt-best.index"]
    for name in others:
        (saved / name).write_text("mine")
    tuner, whole = anew(diverging), anew(diverging)
    fit(tuner, 3, callbacks=[far.Checkpoint(saved)])
    fit(whole, 3)
    same(state_of(tuner), state_of(whole))
    names = sorted(one.name for one in saved.iterdir())
    expected = [
        f"ckpt-{n}.{e}" for n in (2, 3) for e in ("data-00000-of-00001", "index")
    ]
    assert names == sorted([*expected, *others, "checkpoint", "lock"])


HOLDER = """
    import sys
    from far_ho_tf.resuming.locks import lock, unlock

    lock(sys.argv[1])
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_two_runs_in_one_folder(saved):
    """The second is told who has it; a process that is killed has it no more."""
    before = {one.name: one.read_bytes() for one in saved.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), saved],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            far.CheckpointError,
            match=rf"in use by another run.*process {holder.pid} on",
        ):
            fit(anew(diverging), 4, callbacks=[far.Checkpoint(saved)])
        holder.kill()
    after = {one.name: one.read_bytes() for one in saved.iterdir()}
    assert before.pop("lock") != after.pop("lock")
    assert before == after
    fit(anew(diverging), 4, callbacks=[far.Checkpoint(saved)])


def test_a_run_that_another_one_has_overtaken(tmp_path):
    """Within one process, between two fits."""
    tuner, checkpoint = anew(diverging), far.Checkpoint(tmp_path)
    fit(tuner, 1, callbacks=[checkpoint])
    keras.utils.clear_session(free_memory=False)
    fit(anew(diverging), 2, callbacks=[far.Checkpoint(tmp_path)])
    with pytest.raises(far.CheckpointError, match="written to by another run since"):
        fit(tuner, 1, callbacks=[checkpoint])


def test_a_folder_that_is_moved(saved):
    """Paths in the record are those within the folder."""
    moved = pathlib.Path(shutil.move(saved, saved.parent / "moved"))
    tuner, whole = anew(diverging), anew(diverging)
    fit(tuner, 3, callbacks=[far.Checkpoint(moved)])
    fit(whole, 3)
    same(state_of(tuner), state_of(whole))
