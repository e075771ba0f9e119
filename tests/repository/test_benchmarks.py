"""What the benchmarks compare the modes with."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

import far_ho_tf as far
from tests.helpers import ROOT

FOLDER = ROOT / "benchmarks"


def test_plain_training_is_that_of_the_modes(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    problems = importlib.import_module("problems")
    problem, _ = problems.bilevel(problems.PROBLEMS["mlp 20-10-2, 50"])
    trained = problems.plain_training(problem, 5, jit_compile=False)()
    result = far.ReverseHG(jit_compile=False).compute(problem, 5)
    for one, other in zip(trained, result.state.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_a_workload_is_what_it_says(monkeypatch):
    """Softmax regression with a weight for each example, against NumPy."""
    monkeypatch.syspath_prepend(FOLDER)
    workloads = importlib.import_module("peers.workloads")
    with_far = importlib.import_module("peers.with_far")
    workload = workloads.cleaning("", 12, 4)

    def softmax(x, state):
        exponents = np.exp(x @ state[0] + state[1])
        return exponents / exponents.sum(axis=1, keepdims=True)

    def outer(weights):
        state = [w.astype(np.float64) for w in workload.weights]
        x, y = workload.train
        for _ in range(workload.num_steps):
            error = softmax(x, state) - np.eye(10)[y]
            error *= weights[:, None] / len(x)
            state = [state[0] - 0.05 * x.T @ error, state[1] - 0.05 * error.sum(axis=0)]
        x, y = workload.validation
        return -np.mean(np.log(softmax(x, state)[np.arange(len(y)), y]))

    weights = workload.hyperparameters["weights"].astype(np.float64)
    expected = [
        (outer(weights + 1e-5 * step) - outer(weights - 1e-5 * step)) / 2e-5
        for step in np.eye(12)
    ]
    for make in with_far.configurations(workload).values():
        hypergradient, _ = make()
        np.testing.assert_allclose(
            hypergradient()["weights"], expected, rtol=1e-3, atol=1e-6
        )


def record(tool, median, difference=1e-6, **more):
    return {
        "tool": tool,
        "configuration": "as it is",
        "first": 1.0,
        "median": median,
        "hypergradient": [0.9 * median, median, 1.1 * median],
        "train": [median / 4],
        "memory": 5e6,
        "counts": True,
        "differences": {"rate": difference, "momentum": None},
        **more,
    }


class TestReport:
    def report(self, monkeypatch):
        monkeypatch.syspath_prepend(FOLDER)
        return importlib.import_module("peers.report")

    def test_a_tool_that_disagrees_is_wrong_and_not_fast(self, monkeypatch):
        report = self.report(monkeypatch)
        records = [record("far", 0.2), record("torchopt", 0.1, 0.02)]
        _, _, _, _, ours, other = report.table(
            {"title": "1: one", "records": records}
        ).splitlines()
        assert ours == (
            "| far | 200.00 ms | 10% | 3 | 1.00 | 4.0 | 0.8 | 5 | 1.0e-06 "
            "| as it is; no momentum |"
        )
        assert other.startswith("| torchopt | wrong | 10% | 3 |  | 4.0 |")
        assert report.ratios(records) == [None, None]
        assert report.is_wrong(record("jax", 0.1, np.nan))
        one_nan = record("jax", 0.1, differences={"rate": 1e-6, "momentum": np.nan})
        assert report.is_wrong(one_nan)

    def test_who_lacks_derivatives_counts_where_all_do(self, monkeypatch):
        report = self.report(monkeypatch)
        whole = record("torch", 0.3, differences={"rate": 1e-6, "momentum": 1e-6})
        records = [record("torchopt", 0.1), whole, record("betty", 0.2)]
        assert report.best(records, report.PYTORCH) is whole
        assert report.best(records[::2], report.PYTORCH) is records[0]
        beside = record("far", 0.1, counts=False)
        assert report.best([record("far", 0.2), beside], ("far",))["median"] == 0.2

    def test_what_is_not_timed_is_told_below(self, monkeypatch):
        report = self.report(monkeypatch)
        failed = {"tool": "jax", "configuration": "scan", "failure": "no memory"}
        wrong = record("betty", 0.1, 0.5)
        slower = record("torch", 0.3)
        for other in (wrong, slower):
            del other["median"]
        records = [record("far", 0.2), failed, wrong, slower]
        lines = report.table({"title": "", "records": records}).splitlines()
        assert lines[-2:] == [
            "* jax scan: no memory",
            "* betty as it is is wrong by 5e-01.",
        ]

    def test_missed_targets_are_told(self, monkeypatch):
        monkeypatch.syspath_prepend(FOLDER)
        targets = importlib.import_module("peers.targets")
        ours = record("far", 1.0, train=[0.2], memory=3e6)
        others = [record("jax", 0.9, memory=2e6), record("torch", 1.1)]
        results = {"workloads": {"1": {"records": [ours, *others]}}}
        assert targets.misses(results) == [
            "* 1: JAX / far_ho_tf 0.90, not 1.0.",
            "* 1: the best PyTorch tool / far_ho_tf 1.10, not 1.2.",
            "* 1: 5.0 of its own training runs, not 4.0.",
            "* 1: 3 MB at the peak (as it is), where JAX takes 2.",
        ]
        results = {"workloads": {n: {"records": []} for n in targets.WORKLOADS}}
        results["workloads"]["1"] = {"records": [ours, *others]}
        found = targets.misses(results)
        assert found[-1] == "* JAX / far_ho_tf 0.90 on the mean, not 1.25."
        assert "* 2: no right hypergradient of far_ho_tf." in found
        ours = record("far", 1.0, train=[0.3], memory=3e6)
        others = [record("jax", 1.3, memory=2e6), record("torch", 1.3)]
        others[0]["configuration"] = "scan, states alone"
        frugal = record("far", 2.0, memory=1e6, counts=False)
        frugal["configuration"] = "states alone"
        results = {"workloads": {"1": {"records": [ours, frugal, *others]}}}
        assert targets.misses(results) == []
        frugal["memory"] = 4e6
        missed = "* 1: 4 MB at the peak (states alone), where JAX takes 2."
        assert targets.misses(results) == [missed]
        ours = record("far", 1.0, difference=2e-4, train=[0.1], memory=1e6)
        results = {"workloads": {"2": {"records": [ours, *others]}}}
        assert targets.misses(results) == [
            "* 2: it differs by 2e-04, more than 1e-04.",
            "* 2: the best PyTorch tool / far_ho_tf 1.30, not 20.0.",
        ]
        wrong = [record(tool, 0.1, difference=0.5) for tool in ("jax", "torch")]
        results = {"workloads": {"3": {"records": [ours, *wrong]}}}
        assert targets.misses(results)[1:] == [
            "* 3: no right hypergradient of a PyTorch tool.",
            "* 3: no right hypergradient of JAX.",
        ]
        results = {"workloads": {"3": {"records": [ours]}}}
        assert len(targets.misses(results)) == 1  # Of who was asked.
        assert targets.text({"workloads": {}}) == ""

    def test_the_summary_takes_geometric_means(self, monkeypatch):
        report = self.report(monkeypatch)
        workloads = {
            "1": [record("far", 0.1), record("jax", 0.2), record("torch", 0.4)],
            "2": [record("far", 0.1), record("jax", 0.05), record("higher", 0.3)],
        }
        results = {
            "workloads": {n: {"title": n, "records": r} for n, r in workloads.items()}
        }
        assert report.summary(results).splitlines()[2:] == [
            "| 1 | 100.00 ms | 200.00 ms | 400.00 ms (torch) | 2.00 | 4.00 |",
            "| 2 | 100.00 ms | 50.00 ms | 300.00 ms (higher) | 0.50 | 3.00 |",
            "| geometric mean |  |  |  | 1.00 | 3.46 |",
        ]

    def test_growth_is_told_with_the_slope_of_the_largest(self, monkeypatch):
        report = self.report(monkeypatch)
        times = {1: 5.0, 10: 1.0, 100: 100.0, 1000: 10_000.0}
        ours = [record("far", time, size=size) for size, time in times.items()]
        failed = {"tool": "jax", "size": 1000, "failure": "no memory"}
        failed["configuration"] = "scan"
        assert np.isclose(report.slope(times, list(times)), 2.0)
        assert (
            report.slope({10: 1.0, 100: 2.0, 1000: 3.0}, [10, 100, 1000, 9999]) is None
        )
        wrong = record("torch", 2.0, size=100, difference=0.5)
        others = [record("jax", 2.0, size=10), failed, wrong]
        assert report.growth_table("steps", [*ours, *others]).splitlines() == [
            "**Growth with steps T**",
            "",
            "| steps T | 1 | 10 | 100 | 1,000 | slope |",
            "| --- | --- | --- | --- | --- | --- |",
            "| far | 5.00 s | 1.00 s | 100.00 s | 10000.00 s | 2.00 |",
            "| jax |  | 2.00 s |  |  |  |",
            "| torch |  |  |  |  |  |",
            "",
            "* 1,000: jax scan: no memory",
        ]

    def test_pictures_are_drawn(self, monkeypatch, tmp_path):
        monkeypatch.syspath_prepend(FOLDER)
        pictures = importlib.import_module("peers.pictures")
        growth = [record("far", size / 9, size=size) for size in (1, 10, 100)]
        records = [record("far", 0.1), record("jax", 0.2)]
        failed = {"tool": "higher", "configuration": "", "failure": "no such mode"}
        results = {"workloads": {"1": {"title": "", "records": [failed]}}, "growth": {}}
        pictures.draw(results, tmp_path)  # Of nothing.
        results = {
            "workloads": {"1": {"title": "", "records": records}},
            "growth": {"steps": growth},
        }
        pictures.draw(results, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            "workloads.png",
            "growth-steps.png",
        }


class FakeWorker:
    """Answers as `peers.asking.Worker` does, with what is `told`: strings fail."""

    told = {}
    asked = []

    def __init__(self, tool, configuration, workload, environment=None):
        self.name = f"{tool} {configuration}"

    def ask(self, command):
        command, *path = command.split() or ["list"]
        FakeWorker.asked.append((self.name, command))
        answer = self.told.get(self.name, {}).get(command, 1.0)
        answer = answer.pop(0) if isinstance(answer, list) and path == [] else answer
        if isinstance(answer, str):
            raise RuntimeError(answer)
        if command == "values":
            np.savez(path[0], rate=answer)
        if command == "list":
            return answer["names"] if isinstance(answer, dict) else ["one"]
        return (answer, answer) if command == "prepare" else answer

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def measured(monkeypatch, told, tools, rounds=2, **options):
    monkeypatch.syspath_prepend(FOLDER)
    measuring = importlib.import_module("peers.measuring")
    monkeypatch.setattr(measuring, "Worker", FakeWorker)
    FakeWorker.told, FakeWorker.asked = told, []
    return measuring.measure("2", tools, rounds, 60.0, **options)


class TestMeasuring:
    def test_the_fastest_that_is_right_counts(self, monkeypatch):
        told = {
            "jax list": {"list": {"names": ["wrong", "slow", "fast"]}},
            "jax wrong": {"hypergradient": 0.1, "values": 2.0},
            "jax slow": {"hypergradient": 1.1, "memory": 9.0},
            "far list": {"list": {"names": ["auto", "states alone"]}},
            "far auto": {"hypergradient": 0.5},
            "far states alone": {"hypergradient": 0.4},
        }
        records = measured(monkeypatch, told, ["far", "jax"])
        found = {r["configuration"]: r.get("counts") for r in records if "median" in r}
        assert found == {"auto": True, "states alone": False, "fast": True}
        names = [r["configuration"] for r in records]
        assert names == ["auto", "states alone", "fast", "wrong", "slow"]
        wrong = records[3]
        assert wrong["differences"] == {"rate": 1.0} and "hypergradient" not in wrong
        timed = [name for name, what in FakeWorker.asked if what == "train"]
        forth = ["far auto", "far states alone", "jax slow", "jax fast"]
        assert timed == forth + forth[::-1]

    def test_what_fails_stops_nothing_else(self, monkeypatch):
        told = {
            "torch one": {"hypergradient": [1.0, 2.0, "no memory"]},
            "higher one": {"values": "no values"},
            "betty list": {"list": {"names": []}},
            "far one": {"memory": "no memory"},
        }
        tools = ["far", "torch", "higher", "betty"]
        ours, *others = measured(monkeypatch, told, tools)
        assert ours["median"] == 1.0 and ours["memory"] is None
        assert [record["failure"] for record in others] == [
            *("no memory", "no values", "it is not run in this mode"),
        ]
        told = {"jax reference": {"values": "no float64"}}
        (record,) = measured(monkeypatch, told, ["far"])
        assert record["failure"] == "no float64"

    def test_who_has_spent_the_time_is_measured_three_times(self, monkeypatch):
        told = {"far one": {"hypergradient": 15.0}}
        ours, other = measured(monkeypatch, told, ["far", "jax"], rounds=5)
        assert len(ours["hypergradient"]) == 4  # 16 s each: 48 s are less than 60.
        assert len(other["hypergradient"]) == 5
        told = {"far one": {"hypergradient": 100.0}}
        ours, _ = measured(monkeypatch, told, ["far", "jax"], rounds=5)
        assert len(ours["hypergradient"]) == 3

    def test_a_process_that_is_killed_is_told(self, monkeypatch):
        monkeypatch.syspath_prepend(FOLDER)
        asking = importlib.import_module("peers.asking")
        monkeypatch.setattr(asking, "MOST_SECONDS", 0.1)
        with (
            asking.Worker("far", "list", "1") as worker,
            pytest.raises(RuntimeError, match="ended by SIGKILL"),
        ):
            worker.ask("")
        monkeypatch.setattr(asking, "MOST_SECONDS", 60.0)
        with (
            asking.Worker("none", "list", "1") as worker,
            pytest.raises(RuntimeError, match="with_none"),
        ):
            worker.ask("")


def test_workloads_have_names(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    workloads = importlib.import_module("peers.workloads")
    assert workloads.of("steps-10").num_steps == 10
    assert workloads.of("5@2").batches.shape == (2, 100)
    sizes = [workloads.of(f"weights-{n}").weights for n in (1000, 10**6)]
    for n, weights in zip((1000, 10**6), sizes, strict=True):
        assert abs(sum(w.size for w in weights) / n - 1) < 0.1
    rate = workloads.of("tangents-1")
    assert list(rate.hyperparameters) == ["rate"]
    count = sum(
        np.size(h) for h in workloads.of("tangents-64").hyperparameters.values()
    )
    assert count == 64


def later_calls(*flags):
    script = FOLDER / "later_calls.py"
    return subprocess.run(
        [sys.executable, script, *flags], capture_output=True, text=True, check=False
    )


@pytest.mark.thorough
def test_later_calls_of_two_states():
    """Of one and the same: a row with its times and their ratio."""
    few = "--workload=2@2", "--processes=1", "--rounds=1"
    done = later_calls("--checkout", FOLDER.parent, *few)
    assert done.returncode == 0, done.stderr
    _, row = done.stdout.splitlines()
    name, then, now, ratio, _ = row.split()
    assert name == "2@2"
    assert float(ratio) == pytest.approx(float(then) / float(now), rel=0.02)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workload=8"], "--workload must be of 1, 2, 3"),
        (["--workload=1,2@0"], "Received: ['2@0']"),
        (["--workload="], "Received: none"),
        ([], "--checkout holds no far_ho_tf"),
        (["--checkout="], "--checkout holds no far_ho_tf"),
        (["more"], "Unexpected arguments: more"),
    ],
)
def test_bad_flags_of_later_calls(flags, message, tmp_path):
    done = later_calls(f"--checkout={tmp_path}", *flags)
    assert done.returncode
    assert message in done.stderr + done.stdout
