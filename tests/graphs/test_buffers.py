"""One program for any number of steps up to a size: values, and when it is traced.

Inner: w ← w − 2ηw from w = 2, so w_T = 2 a^T with a = 1 − 2η. Outer: E = ½ w_T².
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.data import array_sources
from far_ho_tf.graphs.buffers import capacity
from tests.helpers import hyper, in_tiers

RATE, A = 0.05, 0.9
MODES = {
    "all states": far.ReverseHG(False),
    "no products": far.ReverseHG(False, keep_residuals=False),
    "segments": far.ReverseHG(False, checkpointing="sqrt"),
    "checkpoints": far.ReverseHG(False, checkpointing=3),
    "budget": far.ReverseHG(False, memory_budget=500),
    "truncated": far.ReverseHG(False, truncation=4),
    "forward": far.ForwardHG(False),
    "reversed": far.ReversibleHG(False),
    "all states, xla": far.ReverseHG(True),
    "segments, xla": far.ReverseHG(True, checkpointing="sqrt"),
    "forward, xla": far.ForwardHG(True),
}
FIRST = ["all states", "segments", "checkpoints", "truncated", "forward", "reversed"]


@pytest.mark.parametrize("name", in_tiers(MODES, FIRST))
def test_any_number_of_steps(name):
    w, calls = keras.Variable(2.0, dtype="float64", name="w"), []
    rate = hyper(RATE, "rate")
    problem = far.BilevelProblem(
        lambda: calls.append(1) or w * w,
        lambda: 0.5 * w * w,
        *([w], far.Momentum(rate, 1e-5 if name == "reversed" else 0.0), [rate]),
    )
    tolerance = 1e-3 if name == "reversed" else 1e-12  # For μ, which is not zero.
    traced = {}
    for num_steps in (8, 1, 3, 9, 16, 33, 40, 5):
        before = len(calls)
        result = MODES[name].compute(problem, num_steps)
        traced.setdefault(capacity(num_steps), []).append(len(calls) - before)
        states = 2 * A ** np.arange(num_steps + 1)
        counted = min(4, num_steps) if name == "truncated" else num_steps
        through = -2 * counted * A ** (counted - 1) * states[num_steps - counted]
        np.testing.assert_allclose(
            result.hypergradients[0], states[-1] * through, rtol=tolerance
        )
        np.testing.assert_allclose(
            result.inner_values, states[:-1] ** 2, rtol=tolerance
        )
        assert result.inner_values.shape == (num_steps,)
        np.testing.assert_allclose(w, states[-1], rtol=tolerance)
    if "segments" in name:
        del traced[8]  # There all states are kept, of some numbers of steps.
    if name not in ("checkpoints", "budget"):  # These keep all states if they can.
        for first, *others in traced.values():
            assert first > 0
            assert not any(others)


def test_elements_of_a_dataset_have_room_for_more():
    """And those beyond the last are not seen: each step adds its own element."""
    w, calls = keras.Variable(0.0, dtype="float64", name="w"), []
    rate = hyper(0.5, "rate")
    problem = far.BilevelProblem(
        lambda x: calls.append(1) or w * tf.reduce_sum(x),
        lambda: 1.0 * w,
        *([w], far.GradientDescent(rate), [rate]),
        inner_data=tf.data.Dataset.range(1, 100).map(
            lambda n: tf.cast(tf.repeat(n, 1 + n % 2), tf.float64)
        ),
    )
    mode, traced = far.ReverseHG(jit_compile=False), []
    for num_steps in (7, 3, 8):
        total = sum(n * (1 + n % 2) for n in range(1, num_steps + 1))
        result = mode.compute(problem, num_steps)
        np.testing.assert_allclose(result.hypergradients[0], -total)
        np.testing.assert_allclose(w, -0.5 * total)
        traced.append(len(calls))
    assert len(set(traced)) == 1


class TestTheTableOfIndices:
    def batches(self, **options):
        return far.Batches(np.arange(50), batch_size=8, seed=3, **options)

    @pytest.mark.parametrize("shuffle", [True, False])
    @pytest.mark.parametrize("limit", [array_sources._LARGEST_TABLE, 10])
    def test_batches_are_those_of_their_step(self, shuffle, limit, monkeypatch):
        """Read ahead, from far on, back again, and where the table is too large."""
        monkeypatch.setattr(array_sources, "_LARGEST_TABLE", limit)
        monkeypatch.setattr(array_sources, "_READ_AHEAD", 8 * 16)
        batches = self.batches(shuffle=shuffle)
        source = array_sources.as_source(batches, "inner_data")
        for first_step, num_steps in ((0, 5), (5, 5), (10, 10), (2**30, 9), (3, 2)):
            prepared = source.prepare(first_step, num_steps)
            assert (prepared[1] is None) == (limit == 10)
            for step in (first_step, first_step + num_steps - 1):
                found = source.batch(prepared, tf.constant(step))
                np.testing.assert_array_equal(found, batches(step))

    def test_the_next_run_finds_its_steps(self):
        source = array_sources.as_source(self.batches(), "inner_data")
        table = source.prepare(0, 5)[1]
        assert source.prepare(5, 5)[1] is table
        assert source.prepare(len(table) - 5, 5)[1] is table
        assert source.prepare(len(table) - 4, 5)[1] is not table
