"""What the benchmarks compare the modes with."""

import importlib
import pathlib

import numpy as np

import far_ho_tf as far

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


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
            "| far | 200.00 ms | 10% | 1.00 | 4.0 | 0.8 | 5 | 1.0e-06 "
            "| as it is; no momentum |"
        )
        assert other.startswith("| torchopt | wrong | 10% |  | 4.0 |")
        assert report.ratios(records) == [None, None]
        assert report.is_wrong(record("jax", 0.1, np.nan))

    def test_memory_with_the_same_policy_is_told(self, monkeypatch):
        report = self.report(monkeypatch)
        records = [record("far", 0.2, states_memory=3e6)]
        line = report.table({"title": "", "records": records}).splitlines()[-1]
        assert line.endswith("| as it is; no momentum; with states alone 3 MB |")

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
            "* jax scan fails: no memory",
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
            "* 1: 3 MB at the peak, where JAX takes 2.",
        ]
        results = {"workloads": {n: {"records": []} for n in targets.WORKLOADS}}
        results["workloads"]["1"] = {"records": [ours, *others]}
        found = targets.misses(results)
        assert found[-1] == "* JAX / far_ho_tf 0.90 on the mean, not 1.25."
        assert "* 2: far_ho_tf was not measured." in found
        ours = record("far", 1.0, train=[0.3], memory=3e6, states_memory=1e6)
        others = [record("jax", 1.3, memory=2e6), record("torch", 1.3)]
        results = {"workloads": {"1": {"records": [ours, *others]}}}
        assert targets.misses(results) == []
        ours = record("far", 1.0, difference=2e-4, train=[0.1], memory=1e6)
        results = {"workloads": {"2": {"records": [ours, *others]}}}
        assert targets.misses(results) == [
            "* 2: it differs by 2e-04, more than 1e-04.",
            "* 2: the best PyTorch tool / far_ho_tf 1.30, not 20.0.",
        ]
        wrong = record("jax", 0.1, difference=0.5)
        results = {"workloads": {"3": {"records": [ours, wrong]}}}
        assert targets.misses(results)[1:] == ["* 3: no right hypergradient of JAX."]
        assert targets.text({"workloads": {}}) == ""

    def test_the_summary_takes_geometric_means(self, monkeypatch):
        report = self.report(monkeypatch)
        workloads = {
            "1": [record("far", 0.1), record("jax", 0.2), record("torch", 0.4)],
            "2": [record("far", 0.1), record("jax", 0.05), record("higher", 0.3)],
        }
        results = {"workloads": {n: {"records": r} for n, r in workloads.items()}}
        assert report.summary(results).splitlines()[2:] == [
            "| 1 | 2.00 | 4.00 |",
            "| 2 | 0.50 | 3.00 |",
            "| geometric mean | 1.00 | 3.46 |",
        ]

    def test_growth_is_told_with_the_slope_of_the_largest(self, monkeypatch):
        report = self.report(monkeypatch)
        times = {1: 5.0, 10: 1.0, 100: 100.0, 1000: 10_000.0}
        ours = [record("far", time, size=size) for size, time in times.items()]
        failed = {"tool": "jax", "size": 1000, "failure": "no memory"}
        assert np.isclose(report.slope(ours), 2.0)
        assert report.growth_table(
            "steps", [*ours, record("jax", 2.0, size=10), failed]
        ).splitlines()[::2] == [
            "| steps T | 1 | 10 | 100 | 1,000 | slope |",
            "| far | 5.00 s | 1.00 s | 100.00 s | 10000.00 s | 2.00 |",
        ]

    def test_a_tool_that_fails_meanwhile_stops_no_other(self, monkeypatch):
        monkeypatch.syspath_prepend(FOLDER)
        measuring = importlib.import_module("peers.measuring")

        class Worker:
            def __init__(self, answers):
                self.answers = iter(answers)

            def ask(self, command):
                answer = next(self.answers)
                if isinstance(answer, str):
                    raise RuntimeError(answer)
                return answer

            def close(self):
                pass

        good, bad = {"once": 1.0}, {"once": 1.0}
        workers = Worker([1.0, 2.0, 3.0, 4.0]), Worker([1.0, 2.0, "no memory"])
        measuring._take_turns(list(zip(workers, (good, bad), strict=True)), 2, 60)
        assert good["hypergradient"] == [1.0, 3.0] and good["train"] == [2.0, 4.0]
        assert good["median"] == 2.0
        assert bad["failure"] == "no memory" and "median" not in bad

    def test_pictures_are_drawn(self, monkeypatch, tmp_path):
        monkeypatch.syspath_prepend(FOLDER)
        pictures = importlib.import_module("peers.pictures")
        growth = [record("far", size / 9, size=size) for size in (1, 10, 100)]
        records = [record("far", 0.1), record("jax", 0.2)]
        results = {
            "workloads": {"1": {"title": "", "records": records}},
            "growth": {"steps": growth},
        }
        pictures.draw(results, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            "workloads.png",
            "growth-steps.png",
        }


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
