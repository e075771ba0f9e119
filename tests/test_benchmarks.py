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
