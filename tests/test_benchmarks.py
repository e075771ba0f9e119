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
