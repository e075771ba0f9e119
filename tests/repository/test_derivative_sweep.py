"""The sweep over derivatives (`tools/derivative_sweep.py`) tells right from wrong."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import ROOT

TOOLS = ROOT / "tools"
POINT = np.array([0.3, -0.7, 1.2])


@pytest.fixture
def sweep(monkeypatch):
    """Imports a module of the sweep."""
    monkeypatch.syspath_prepend(TOOLS)
    return lambda name: importlib.import_module(f"derivatives.{name}")


@tf.custom_gradient
def half(x):
    """x² whose gradient is half of its derivative."""
    return x * x, lambda upstream: upstream * x


def kept(x):
    """The same as a library's own, whose rule far_ho_tf takes as the derivative."""

    def square(x):
        return x * x, lambda upstream: upstream * x

    square.__module__ = "tensorflow.made_up"
    return tf.custom_gradient(square)(x)


def too_large_for_a_graph(x):
    if not tf.executing_eagerly():
        raise MemoryError("there is none left")
    return tf.sin(x)


def called(x):
    return tf.py_function(tf.sin, [x], tf.float64)


def statuses(checks):
    return {name: result["status"] for name, result in checks.items()}


def operations(sweep, function, point=POINT):
    module = sweep("operations")
    ways = {"reverse": module.by_reverse, "forward": module.by_forward}
    return module.check(module.Case(function, [point]), ways, compiled=("reverse",))


@pytest.mark.parametrize(
    ("function", "point"),
    [
        (tf.sin, POINT),
        (tf.nn.softplus, np.zeros(3)),
        (lambda z: tf.square(z) * tf.math.conj(z), POINT + 1j),
        (lambda x: tf.cast(tf.sin(tf.cast(x, tf.float32)), tf.float64), POINT),
    ],
    ids=["smooth", "zero", "complex", "float32"],
)
def test_right_derivatives(sweep, function, point):
    single = "float32" if function is not tf.sin and point is POINT else ""
    module = sweep("operations")
    ways = {"reverse": module.by_reverse, "forward": module.by_forward}
    case = module.Case(function, [point], single=bool(single))
    found = statuses(module.check(case, ways, compiled=("reverse",)))
    assert set(found.values()) == {"right"}
    assert {"first", "graph reverse", "graph forward", "xla reverse"} <= found.keys()


def test_a_loop(sweep):
    module = sweep("operations")
    assert set(statuses(module.check_loop(module.Case(tf.sin, [POINT]))).values()) == {
        "right"
    }
    found = statuses(module.check_loop(module.Case(kept, [POINT])))
    assert found["loop reverse"] == "WRONG"


def test_a_wrong_rule_by_tapes(sweep):
    """Without far_ho_tf's cure neither derivative is taken as right."""
    module = sweep("operations")
    case = module.Case(half, [POINT])
    found = statuses(module.check(case, {"reverse": module.by_tapes}))
    assert found["first"] == found["graph reverse"] == "WRONG"


def test_a_wrong_rule_with_the_cure(sweep):
    """The training goes by the rule still, but its derivative is right."""
    found = statuses(operations(sweep, half))
    assert found["first"] == "WRONG"
    assert found["graph reverse"] == found["xla reverse"] == "right"


def test_a_rule_that_is_kept(sweep):
    found = statuses(operations(sweep, kept))
    assert found["first"] == found["graph reverse"] == found["graph forward"] == "WRONG"
    assert sweep("problems").check(sweep("operations").Case(kept, [POINT]))[
        "status"
    ] == ("WRONG")


def test_other_values(sweep):
    """Values that a graph, or XLA, makes otherwise."""

    def differs(x):
        return x if tf.executing_eagerly() else 1.01 * x

    found = statuses(operations(sweep, differs))
    assert found["graph outputs"] == found["xla outputs"] == "other"


@pytest.mark.parametrize(
    ("function", "point", "expected"),
    [
        (tf.abs, np.array([0.0, 0.5, -1]), "kink"),
        (tf.nn.relu, np.zeros(2), "kink"),
        (tf.sqrt, np.zeros(2), "kink"),
        (lambda x: x * tf.abs(x), np.zeros(2), "kink"),  # In its first derivative.
        (tf.square, np.zeros(2), "right"),
    ],
    ids=["abs", "relu", "edge", "first", "smooth"],
)
def test_kinks(sweep, function, point, expected):
    assert statuses(operations(sweep, function, point))["differences"] == expected


def test_a_kink_that_each_line_passes_smoothly(sweep):
    """The middle one of three equal numbers: derivatives, but no gradient."""

    def median(x):
        return tf.sort(x)[1]

    assert statuses(operations(sweep, median, np.zeros(3)))["first"] == "kink"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (tf.sin, "right"),
        (lambda x: tf.ensure_shape(called(x), [3]), "refused"),
        (lambda x: x * tf.stop_gradient(x), "warned"),
        (lambda x: tf.linalg.logm(tf.cast(tf.linalg.diag(x), "complex128")), "refused"),
        (too_large_for_a_graph, "error"),
    ],
    ids=["right", "refused", "warned", "explained", "error"],
)
def test_problems(sweep, function, expected):
    case = sweep("operations").Case(function, [abs(POINT)])
    assert sweep("problems").check(case)["status"] == expected


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ({"graph forward": "WRONG"}, "wrong"),
        ({"xla reverse": "WRONG"}, "right"),  # "auto" does without XLA.
        ({"problem": "WRONG"}, "wrong"),
        ({"problem": "WRONG", "text": "no error"}, "wrong"),
        ({"problem": "warned", "warning": "told"}, "warned of"),
        ({"problem": "refused", "graph reverse": "WRONG"}, "refused"),
        ({"problem": "refused"}, "refused, though right by itself"),
        ({"problem": "not finite"}, "not finite"),
        ({"problem": "error"}, "error"),
        ({"plain": "WRONG"}, "patched"),
        ({}, "right"),
        ({"differences": "kink", "problem": None}, "kink"),
        ({"first": "WRONG", "problem": None}, "wrong"),
        ({"first": "WRONG", "differences": "kink", "problem": None}, "wrong"),
    ],
)
def test_verdicts(sweep, checks, expected):
    checks = {"differences": "right", "problem": "right"} | checks
    problem, warning = checks.pop("problem"), checks.pop("warning", "")
    text = checks.pop("text", "")
    parts = {"plain": {"graph reverse": {"status": checks.pop("plain", "right")}}}
    parts["operations"] = {name: {"status": one} for name, one in checks.items()}
    if problem:
        parts["problems"] = {
            "problem": {
                "status": problem,
                "warning": warning,
                "text": text,
            }
        }
    assert sweep("verdicts").verdict(parts).verdict == expected


def test_a_cell_has_no_marks_of_tensorflow(sweep):
    text = "no `device`: {{node FFTND}} = FFTND[T=1|2] {{f}} x. [Op:F] name:"
    found = sweep("verdicts").Verdict("error", text)
    assert sweep("document")._cell(found) == "no 'device': FFTND[T=1\\|2] x."


def test_each_public_function_has_a_row(sweep):
    rows = sweep("table").rows()
    assert len(rows) > 800
    coverage = sweep("table.coverage")
    del rows["tf.math.bessel_i1e"]
    missing = coverage.without_row(rows.values())
    assert "tf.math.bessel_i1e" in missing
    # Those of another release are in the document.
    assert "keras.layers.Dense" not in missing


SCRIPT = """
import os, pathlib, sys, time
sys.path.insert(0, {tools!r})
from derivatives import processes
for name in sys.argv[1:]:
    print(name, flush=True)
    if name == "crash":
        os._exit(3)
    if name == "late":
        time.sleep(60)
    processes.note(pathlib.Path({results!r}), "operations", name, {{"a": {{}}}})
"""


def test_what_ends_a_process_is_noted(sweep, tmp_path):
    processes, results = sweep("processes"), tmp_path / "results.jsonl"
    script = SCRIPT.format(tools=str(TOOLS), results=str(results))
    command = [sys.executable, "-c", script]
    names = ["one", "crash", "two", "late", "three"]
    processes.sweep(command, "operations", names, results, limit=3)
    found = {
        n: line["checks"] for n, line in processes.read(results, "operations").items()
    }
    assert found.keys() == set(names)
    assert found["crash"] == {"process": {"status": "the process ended with 3"}}
    assert found["late"] == {"process": {"status": "took more than 3 s"}}
    assert [found[name] for name in ("one", "two", "three")] == [{"a": {}}] * 3


@pytest.mark.thorough
def test_a_command_and_its_document(sweep, tmp_path):
    """A few functions, from the command to the document; then nothing is left."""
    results, document = tmp_path / "results.jsonl", tmp_path / "derivatives.md"
    command = [sys.executable, str(TOOLS / "derivative_sweep.py")]
    command += [f"--results={results}", f"--document={document}"]
    command += ["--only=tf.math.xlog1py", "--parts=operations"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "operations: 4 are left" in told
    text = document.read_text()
    assert "**tf.math**: `xlog1py`" in text
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "operations: 0 are left" in told and document.read_text() == text
