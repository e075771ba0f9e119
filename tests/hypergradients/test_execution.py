"""Wrong arguments of `compute`, and runs that are too large."""

import pytest

import far_ho_tf as far
from far_ho_tf.hypergradients import execution
from tests.misuse import compute, fails


@pytest.mark.parametrize("num_steps", [0, -1, 2.0, True, None])
def test_a_wrong_number_of_steps(parts, num_steps):
    with fails("`num_steps`", "at least 1", f"num_steps={num_steps}"):
        compute(parts, num_steps)


def test_a_wrong_jit_compile():
    with fails("`jit_compile`", "Received: jit_compile='xla'"):
        far.ReverseHG(jit_compile="xla")


def test_a_number_for_jit_compile():
    with fails("`jit_compile`", "Received: jit_compile=1"):
        far.ReverseHG(jit_compile=1)


def test_something_else_than_a_problem():
    with fails("`problem`", "BilevelProblem", "Received: problem=3"):
        far.ReverseHG().compute(3, 1)


class TestNumbersOfSteps:
    def test_beyond_int32(self, parts):
        with fails("`num_steps`", "beyond step 2147483647", "num_steps=2147483648"):
            compute(parts, 2**31)
        problem = far.BilevelProblem(**parts)
        for name in ("first_step", "outer_step"):
            with fails(f"`{name}`", "from 0 to 2147483647", "=2147483648"):
                start = far.Position(**{name: 2**31})
                far.ReverseHG().compute(problem, 1, start=start)
        with fails("`num_steps`", "beyond step 2147483647", "num_steps=9"):
            start = far.Position(first_step=2**31 - 8)
            far.ReverseHG().compute(problem, 9, start=start)
        with fails("`num_steps`", "2147483647"):
            far.plan(problem, 2**31 + 1)

    @pytest.mark.parametrize(
        ("mode", "least"),
        [
            # States and inner values, each as many as there is room for; schedules.
            (far.ReverseHG(), "12.3 GB"),
            (far.ReverseHG(checkpointing=20), "79.3 GB"),
            (far.ReversibleHG(), "20.3 GB"),
            (far.ForwardHG(), "4.29 GB"),
        ],
        ids=str,
    )
    def test_more_than_memory_holds(self, parts, mode, least, monkeypatch):
        """Which would end the process."""
        monkeypatch.setattr(execution, "free_memory", lambda: 4e9)
        if isinstance(mode, far.ReversibleHG):
            parts["dynamics"] = far.Momentum(*parts["hyperparameters"], 0.9)
        problem = far.BilevelProblem(**parts)
        with fails(type(mode).__name__, least, "of 4 GB", "far.plan", "num_steps=1000"):
            mode.compute(problem, 10**9)

    def test_what_memory_holds(self, parts, monkeypatch):
        monkeypatch.setattr(execution, "free_memory", lambda: 1e5)
        compute(parts, 1000)
        monkeypatch.setattr(execution, "_LARGE", 0)
        compute(parts, 1000)
        monkeypatch.setattr(execution, "free_memory", lambda: 1e4)
        with fails("ReverseHG holds", "num_steps=1000"):
            compute(parts, 1000)
