"""The compile cache: from process to process, and where it cannot serve."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.graphs import compilation
from far_ho_tf.hypergradients.compiler import obstacle

# w_1 = w_0 − 2η(w_0 − 1), and so on: E = w_3² from w_0 = 3 at η = 0.1.
SCRIPT = textwrap.dedent(
    """
    import json, sys, warnings

    import keras
    import tensorflow as tf

    import far_ho_tf as far

    traced_before, begun_before = map(int, sys.argv[1:])
    if begun_before:
        tf.constant(1)
    folder = far.compile_cache(%r)
    for _ in range(traced_before):  # TensorFlow numbers all functions of a process.
        tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([]))
    w = keras.Variable(3.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        *(lambda: (w - 1.0) ** 2, lambda: w**2),
        *([w], far.GradientDescent(rate), [rate]),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = far.ReverseHG().compute(problem, num_steps=3)
    print(
        json.dumps(
            {
                "gradient": float(result.hypergradients[0]).hex(),
                "compiler": result.status.compiler,
                "warnings": [str(w.message) for w in caught],
                "entries": sorted(path.name for path in folder.iterdir()),
            }
        )
    )
    """
)


def run(folder, traced_before=0, begun_before=0):
    """What a process of its own prints."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", SCRIPT % str(folder)),
            *(str(traced_before), str(begun_before)),
        ],
        env={k: v for k, v in os.environ.items() if not _is_about_caches(k)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _is_about_caches(name):
    return name in (compilation.VARIABLE, "TF_XLA_FLAGS")


def closed_form():
    """(w − 1) shrinks by a = 1 − 2η in each step; dE/dη = 2 w · 3 a² (−2) (w_0 − 1)."""
    a = 1 - 2 * 0.1
    return 2 * (1 + 2 * a**3) * 2 * 3 * a**2 * -2


def test_other_processes_find_what_was_compiled(tmp_path):
    """Whatever they traced before; and what cannot be read is made anew."""
    first = run(tmp_path)
    assert first["compiler"] == "xla"
    assert float.fromhex(first["gradient"]) == pytest.approx(closed_form(), rel=1e-6)
    assert first["warnings"] == []
    (entry,) = first["entries"]
    (path,) = tmp_path.glob(f"*/{entry}")
    written = path.stat().st_mtime_ns
    assert run(tmp_path, traced_before=7) == first
    assert path.stat().st_mtime_ns == written
    whole = path.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:1000], whole[:half] + bytes(4096) + whole[half + 4096 :]):
        path.write_bytes(damaged)
        mended = run(tmp_path)
        assert {**mended, "entries": [entry]} == first


def test_a_cache_that_comes_too_late_is_said(tmp_path):
    found = run(tmp_path, begun_before=1)
    (warning,) = found["warnings"]
    assert "is not used" in warning
    assert str(tmp_path) in warning
    assert found["entries"] == []
    assert float.fromhex(found["gradient"]) == pytest.approx(closed_form(), rel=1e-6)


ONLINE = textwrap.dedent(
    """
    import pathlib, warnings

    import keras
    import numpy as np
    import tensorflow as tf

    import far_ho_tf as far

    warnings.simplefilter("ignore")
    folder = far.compile_cache(%r)
    layers = [keras.Input((4, 2)), keras.layers.SimpleRNN(2), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    scale = far.Hyperparameter(1.0, name="scale")

    def loss(x):
        return tf.reduce_mean((model(x * scale) - 1.0) ** 2)

    data = np.random.RandomState(0).rand(30, 4, 2).astype("float32")
    problem = far.BilevelProblem(
        *(loss, loss, model, far.GradientDescent(0.1), [scale]),
        inner_data=far.Batches(data, 3),
        outer_data=data,
    )
    for mode in (far.ReverseHG(True), far.ForwardHG(True)):
        result = mode.compute(problem, 3)
        for first_step in (3, 6, 9):
            scale.assign(1 + first_step / 10)
            start = result.end._replace(outer_step=first_step)
            result = mode.compute(problem, 3, start)
        print(len(list(folder.iterdir())))
    """
)


@pytest.mark.thorough
def test_values_that_change_are_not_compiled(tmp_path):
    """Whatever step, batch and λ.

    One program of reverse mode, as descent has no slots that begin with zeros, and of
    forward mode one that begins and one that goes on.
    """
    done = subprocess.run(
        [sys.executable, "-c", ONLINE % str(tmp_path)],
        env={k: v for k, v in os.environ.items() if not _is_about_caches(k)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == [1, 3]


def test_a_variable_that_names_no_folder_is_said(tmp_path, monkeypatch):
    """Who imports far_ho_tf may not know of it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation, "_used", [])
    for value in ("a folder", str(tmp_path / "file")):
        monkeypatch.setenv(compilation.VARIABLE, value)
        with pytest.warns(UserWarning, match=f"{compilation.VARIABLE}='.*names no"):
            compilation.from_environment()
    monkeypatch.setenv(compilation.VARIABLE, "")
    compilation.from_environment()
    assert compilation._used == []


@pytest.mark.parametrize("directory", ["", 3, None])
def test_no_path(directory):
    with pytest.raises(ValueError, match=r"`directory` must be a path.*Received"):
        far.compile_cache(directory)


def test_folders_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "_used", [])
    with pytest.raises(ValueError, match="a space in its path"):
        far.compile_cache(tmp_path / "a folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"`directory` must be a folder .*Received.*file"):
        far.compile_cache(tmp_path / "file")
    with pytest.raises(ValueError, match="a folder of this machine"):
        far.compile_cache("gs://bucket/folder")
    monkeypatch.setattr(compilation, "_used", [tmp_path / "other"])
    with pytest.raises(ValueError, match="A process has one compile cache"):
        far.compile_cache(tmp_path / "one")


def test_processes_that_cannot_share_have_folders_of_their_own(monkeypatch):
    kinds = {compilation._kind()}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    kinds.add(compilation._kind())
    monkeypatch.setattr(compilation, "_processor", lambda: "another")
    kinds.add(compilation._kind())
    monkeypatch.setattr(compilation, "_cores", lambda: 1000)
    kinds.add(compilation._kind())
    assert len(kinds) == 4
    assert all(kind.startswith(f"tensorflow-{tf.__version__}-") for kind in kinds)
    # A child has its parent's flags, which name the parent's cache.
    kind = compilation._kind()
    monkeypatch.setenv("TF_XLA_FLAGS", f"{compilation._DIRECTORY}=/some/where")
    assert compilation._kind() == kind


def regression(jit_compile="auto"):
    w = keras.Variable(np.zeros(3, "float32"), name="w")
    target = far.Hyperparameter(1.0, name="target")
    problem = far.BilevelProblem(
        lambda: tf.reduce_mean((w - target) ** 2),
        lambda: tf.reduce_mean((w - 0.5) ** 2),
        *([w], far.GradientDescent(0.5), [target]),
    )
    return far.HyperOptimizer(problem, far.ReverseHG(jit_compile=jit_compile))


class TestTheWait:
    """`jit_compile="auto"` in `fit`: by the number of steps that are to come."""

    def test_few_steps_are_not_compiled(self, capsys):
        tuner = regression()
        tuner.fit(hyper_iterations=3, num_steps=300, verbose=1)
        assert tuner.status.compiler == "graph"
        assert "900 inner steps (fewer than 1,000" in tuner.status.reason
        told = capsys.readouterr().out
        assert told.count("tracing …") == 1
        assert told.index("tracing …") < told.index("1/3")
        assert "compiling" not in told

    def test_many_are(self, capsys):
        tuner = regression()
        tuner.fit(hyper_iterations=4, num_steps=300, verbose=1)
        assert tuner.status.compiler == "xla"
        assert tuner.status.reason == ""
        told = capsys.readouterr().out
        assert told.index("tracing …") < told.index("compiling … (about ")
        assert told.index("compiling") < told.index("1/4")

    def test_who_asks_for_xla_gets_it(self):
        tuner = regression(jit_compile=True)
        tuner.fit(hyper_iterations=1, num_steps=2, verbose=0)
        assert tuner.status.compiler == "xla"

    def test_a_call_of_which_nothing_is_known_is_one_of_many(self):
        tuner = regression()
        (problem,) = tuner.problems
        mode = tuner.hypergradient
        assert mode.compute(problem, 2).status.compiler == "xla"
        one = mode.compute(problem, 2, hyper_iterations=1)
        assert one.status.compiler == "graph"
        with pytest.raises(ValueError, match=r"`hyper_iterations` must be an integer"):
            mode.compute(problem, 2, hyper_iterations=0)

    def test_episodes_count(self):
        report = regression().problems[0].pure.report
        assert obstacle("auto", report, True, steps_to_come=999)
        assert not obstacle("auto", report, True, steps_to_come=1000)
