"""The table of modes: what it predicts, and what it recommends."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.graphs.peak_memory import peak
from far_ho_tf.planning.prediction import predict
from tests.helpers import Classification, begins_out_of_bounds, hyper

ELEMENTS = 5 * 4 + 4 + 4 * 3 + 3  # Of the network of `Classification`.


def momentum():
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    return problem.bilevel(far.Momentum(rate, 0.9), [rate])


def options_of(plan):
    return {option.name: option for option in plan.options}


def test_it_prints_and_returns_a_table(capsys):
    plan = far.plan(momentum(), num_steps=1000, memory_budget=100_000)
    printed = capsys.readouterr().out
    assert printed == f"{plan}\n"
    options = options_of(plan)
    for name in ("ReverseHG()", "ReverseHG(checkpointing='sqrt')", "ReversibleHG()"):
        assert name in printed and name in options
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert lines["ReverseHG()"].endswith("over budget")
    assert "truncated" in lines["ReverseHG(truncation=100)"]
    assert sum(line.endswith("recommended") for line in lines.values()) == 1
    assert printed.endswith("Budget: 100 kB.\n")


def test_memory_of_stored_states():
    """T states of weights and velocities, and what a step back holds."""
    state, problem = 2 * 8 * ELEMENTS, momentum()
    short, long = (
        options_of(far.plan(problem, steps, 10**9)) for steps in (1000, 9000)
    )
    name = "ReverseHG()"
    # There is room for the next power of two: 1,024 and 16,384.
    assert long[name].memory - short[name].memory == 15_360 * state
    kept = {n: long[f"ReverseHG(checkpointing={n})"].memory for n in (3, 10, 30)}
    assert kept[10] - kept[3] == 7 * state and kept[30] - kept[10] == 20 * state
    # The digits that γ = 0.9 destroys, and nothing else, grow with the steps: 32 at a
    # time, beyond the 35 of the buffer.
    name = "ReversibleHG()"
    spills = [np.ceil((steps * -np.log2(0.9) - 35) / 32) for steps in (1000, 9000)]
    grown = long[name].memory - short[name].memory
    assert abs(grown - 4 * ELEMENTS * (spills[1] - spills[0])) <= 4 * ELEMENTS
    name = "ForwardHG(), 14 tangents"
    assert long[name].memory == short[name].memory


def test_memory_of_chunks_of_tangents():
    problem = momentum()
    all_at_once = predict(problem.pure, 100, far.ForwardHG())
    halves = predict(problem.pure, 100, far.ForwardHG(chunk_size=7))
    assert halves.name == "ForwardHG(chunk_size=7), 14 tangents"
    # Weights, velocities and their tangents, which are held and made anew.
    assert all_at_once.memory - halves.memory > 7 * 2 * 2 * 8 * ELEMENTS
    assert halves.cost == all_at_once.cost + 1


def test_time_in_training_runs():
    """By counting products: 3 a layer, 2 in the first; 8 and 6 in a step back."""
    options = options_of(far.plan(momentum(), 1000, 10**9))
    whole = "ReverseHG(keep_residuals=False)"
    first, second = 12 * 5 * 4, 12 * 4 * 3
    step, back = 2 * first + 3 * second, 4 * first + 8 * second
    assert options[whole].cost == pytest.approx(1 + back / step, rel=0.15)
    again = options["ReverseHG(checkpointing='sqrt')"].cost
    # No product is worth keeping.
    assert again == pytest.approx(options["ReverseHG()"].cost + 1)
    once_more = options["ReversibleHG()"].cost - options[whole].cost
    assert once_more == pytest.approx(1 + 1000 * ELEMENTS / step, rel=1e-6)
    truncated = options["ReverseHG(truncation=100)"].cost
    assert truncated - 1 == pytest.approx((options["ReverseHG()"].cost - 1) / 10)
    assert options["ForwardHG(), 14 tangents"].cost > 14


def test_more_checkpoints_than_steps_are_all_states():
    problem = momentum()
    whole = predict(problem.pure, 100, far.ReverseHG(keep_residuals=False))
    for options in ({"checkpointing": 500}, {"memory_budget": 10**9}):
        option = predict(problem.pure, 100, far.ReverseHG(**options))
        assert (option.memory, option.cost) == (whole.memory, whole.cost)


def test_what_was_run_before_changes_nothing():
    """A program for XLA is traced in other forms than what is predicted meanwhile."""
    mode, before = far.ReverseHG(True, memory_budget=20_000), momentum()
    mode.compute(before, 100)
    assert predict(before.pure, 100, mode) == predict(momentum().pure, 100, mode)


def test_the_cheapest_that_fits_is_recommended():
    problem = momentum()
    assert far.plan(problem, 100, 10**9).recommended == far.ReverseHG()
    budget = 20_000
    mode = far.plan(problem, 1000, budget).recommended
    result = mode.compute(problem, 1000)
    assert result.status.kept_states > 10
    full = far.ReverseHG().compute(problem, 1000)
    np.testing.assert_allclose(
        result.hypergradients[0], full.hypergradients[0], rtol=1e-9
    )
    assert far.plan(problem, 1000, 10).recommended is None


def test_a_budget_of_its_own():
    plan = far.plan(momentum(), 100)
    assert plan.memory_budget > 2**20 and plan.recommended == far.ReverseHG()


@begins_out_of_bounds
def test_dynamics_that_cannot_be_reversed():
    problem = Classification()
    options = options_of(far.plan(problem.bilevel(far.Adam(0.1)), 100, 10**9))
    assert "ReversibleHG()" not in options and "ReverseHG()" in options
    w = keras.Variable([1.0, 2.0], dtype="float64")
    for value in (0.0, 1e-6, -0.5, 1.5, [0.5, 0.6]):
        mass = hyper(value, "mass")
        problem = far.BilevelProblem(
            lambda: tf.reduce_sum(w * w),
            lambda: tf.reduce_sum(w),
            [w],
            far.Momentum(0.1, mass),
            [mass],
        )
        assert "ReversibleHG()" not in options_of(far.plan(problem, 9, 10**6))


def test_the_peak_of_a_graph_by_hand():
    """x (4 kB) → y = x² in its place under XLA → z = A y → Σ z."""
    matrix = tf.ones([1000, 1000])

    def function(x, matrix):
        return tf.reduce_sum(tf.linalg.matvec(matrix, tf.square(x)))

    graph = (
        tf.function(function, autograph=False)
        .get_concrete_function(tf.TensorSpec([1000]), matrix)
        .graph
    )
    given = graph.inputs[:1]
    # In a graph x is held: x, y and z. Under XLA y takes its place.
    assert peak(graph, given, fused=False) == 12_000
    assert peak(graph, given, fused=True) == 8_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("problem", 10), "`problem` must be a BilevelProblem"),
        ((None, 0), "`num_steps` must be an integer"),
        ((None, 10, 1.5), "`memory_budget` must be an integer"),
        ((None, 10, "1GB"), "`memory_budget` must be .* at least 1, in bytes"),
    ],
)
def test_errors(arguments, message):
    first, *others = arguments
    with pytest.raises(ValueError, match=message):
        far.plan(momentum() if first is None else first, *others)


def test_the_users_own_errors_are_raised():
    w, table = keras.Variable([1.0, 2.0]), hyper(np.full(10, 0.1), "table")
    rate = far.Hyperparameter(0.1, name="rate")
    with pytest.raises(ValueError, match="must return a scalar"):
        far.BilevelProblem(
            lambda: 1.0 * w, lambda: w[0], [w], far.Momentum(rate, 0.9), [rate]
        )
    problem = Classification()
    problem = problem.bilevel(far.Momentum(far.Schedule(table), 0.9), [table])
    with pytest.raises(ValueError, match="ends before step 19"):
        far.plan(problem, 20, 10**6)


def test_loops_inside_a_step_are_said_not_to_count():
    w, rate = keras.Variable([1.0, 2.0]), far.Hyperparameter(0.1, name="rate")

    def loss():
        turns = tf.while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * w), (0, w))
        return tf.reduce_sum(turns[1])

    problem = far.BilevelProblem(loss, loss, [w], far.Momentum(rate, 0.9), [rate])
    plan = far.plan(problem, 10, 10**6)
    assert not any(option.complete for option in plan.options)
    assert "≥ " in str(plan) and "≥: without loops" in str(plan)
    with pytest.raises(ValueError, match="cannot be kept where a step holds loops"):
        far.ReverseHG(memory_budget=10**6).compute(problem, 10)


def test_nothing_fits():
    assert str(far.plan(momentum(), 10, 1)).endswith("the whole hypergradient.")


def test_without_products():
    w, rate = keras.Variable([1.0, 2.0], dtype="float64"), hyper(0.1, "rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w**3),
        lambda: tf.reduce_sum(w),
        [w],
        far.Momentum(rate),
        [rate],
    )
    assert options_of(far.plan(problem, 9, 10**6))["ReverseHG()"].cost == 11 / 3
