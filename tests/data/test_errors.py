"""Data that end too soon, or are of no kind that can be replayed."""

import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.misuse import compute, fails


class TestData:
    """Data that end before `num_steps`, at step 2 of 3."""

    @pytest.fixture
    def reading(self, parts):
        (w,) = parts["variables"]

        def inner(batch):
            return tf.reduce_sum(w * w) * tf.reduce_mean(batch)

        return {**parts, "inner_objective": inner}

    @pytest.mark.parametrize("jit_compile", [True, False])
    def test_of_a_callable(self, reading, jit_compile):
        rows = tf.ones((2, 4))
        problem = far.BilevelProblem(
            **reading, inner_data=lambda step: tf.gather(rows, step)
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        with fails("`inner_data` ends before step 2", "indices"):
            mode.compute(problem, 3)
        mode.compute(problem, 2)

    def test_of_a_callable_with_a_wrong_dtype_does_not_end(self, reading):
        rows = tf.ones(4)
        with fails("`inner_data` must be a callable", "float32"):
            compute(reading, inner_data=lambda step: rows * step)

    def test_of_a_slicing_callable(self, reading):
        rows = tf.ones(4)
        with fails("`inner_data` ends before step 2", "empty batch"):
            compute(reading, inner_data=lambda step: rows[2 * step : 2 * step + 2])

    def test_of_a_dataset(self, reading):
        dataset = tf.data.Dataset.from_tensor_slices(tf.ones(4)).batch(2)
        with fails("`inner_data` ends before step 2", "with 2 elements from step 0"):
            compute(reading, inner_data=dataset)

    def test_of_a_callable_over_lists(self, reading):
        rows = [[1.0], [2.0], [3.0]]
        with fails("`inner_data` must be a callable", "tf.gather", "list indices"):
            compute(reading, inner_data=lambda step: rows[step])

    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_that_read_a_hyperparameter(self, reading, role):
        """A learned augmentation belongs in the objective."""
        (rate,) = reading["hyperparameters"]
        objective = reading["inner_objective"]
        changes = {role: lambda step: rate * tf.ones(4)}
        if role == "outer_data":
            changes |= {"outer_objective": objective, "inner_data": tf.ones(4)}
        with fails(f"`{role}` reads `rate`", "in the objective"):
            compute(reading, **changes)

    def test_of_a_dataset_that_reads_a_hyperparameter(self, reading):
        (rate,) = reading["hyperparameters"]
        dataset = tf.data.Dataset.from_tensor_slices(tf.ones(8))
        dataset = dataset.map(lambda x: x * rate.value).batch(2).repeat()
        with fails("`inner_data` reads `rate`", "in the objective"):
            compute(reading, inner_data=dataset)

    def test_of_no_kind_that_is_known(self, reading):
        with fails("`inner_data`", "Received"):
            compute(reading, inner_data=object())


COMPOSITE = {
    "ragged": tf.ragged.constant([[1.0, 2.0], [3.0]]),
    "sparse": tf.sparse.from_dense([[1.0, 0.0], [0.0, 2.0]]),
}


class TestKindsOfTensors:
    @pytest.mark.parametrize("kind", COMPOSITE)
    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_ragged_and_sparse_ones(self, parts, kind, role):
        tensor = COMPOSITE[kind]
        remedies = "to_tensor", "tf.sparse.to_dense", "Received: tensor="
        dataset = tf.data.Dataset.from_tensors((tensor, 1.0)).repeat()
        for data in (tensor, (1.0, tensor), dataset):
            with fails(f"`{role}`", "must be dense", *remedies):
                compute(parts, **{role: data})
        with fails(f"`{role}`", "must be dense", "to_tensor"):
            compute(parts, **{role: lambda step: tensor})
        with fails("`tensors` of `Batches`", "must be dense", *remedies):
            far.Batches(tensor, 1)

    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_empty_ones(self, parts, role):
        empty = np.zeros((0, 3), "float32")
        dataset = tf.data.Dataset.from_tensors(empty).repeat()
        for data in (empty, (np.ones(2), empty), [], {}, dataset):
            with fails(f"`{role}`", "must have examples", "Received: shapes="):
                compute(parts, **{role: data})
        with fails("`tensors` of `Batches`", r"shapes=\[\(0, 3\)\]"):
            far.Batches(empty, 1)


class TestLists:
    """Lists are structures of tensors here."""

    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_of_numbers(self, parts, role):
        x, y = np.ones((20, 2)), np.ones(20)
        for data in (
            y.tolist(),
            (x.tolist(), y),
            {"x": x, "y": [*"abcdefghijklmnopqr"]},
        ):
            with fails(f"`{role}` must be arrays or tensors", "np.asarray"):
                compute(parts, **{role: data})

    def test_of_numbers_in_batches(self):
        x = np.ones((20, 2))
        with fails("`tensors` of `Batches` must be arrays or tensors", "np.asarray"):
            far.Batches((x.tolist(), x[:, 0].tolist()), 4)

    def test_of_tensors(self, parts):
        many = [tf.ones(2)] * 20
        compute(parts, inner_objective=_ignoring(parts), inner_data=many)
        compute(parts, inner_objective=_ignoring(parts), inner_data=[1.0, 2.0])


class TestBroadcasting:
    @pytest.mark.parametrize("role", ["inner_data", "outer_data"])
    def test_one_example_and_more(self, parts, role):
        objective = role.replace("data", "objective")
        changes = {
            objective: _ignoring(parts),
            role: (np.ones((4, 2)), np.ones((1, 2))),
        }
        with pytest.warns(UserWarning, match=rf"`{role}` holds .*\(4, 2\), \(1, 2\)"):
            compute(parts, **changes)

    def test_others_are_silent(self, parts):
        """Warnings of this package are errors in tests."""
        for data in [(1.0, np.ones(4)), (np.ones((1, 2)), np.ones(1)), np.ones((1, 3))]:
            compute(parts, inner_objective=_ignoring(parts), inner_data=data)


def _ignoring(parts):
    """The objective, which takes data and does not read them."""
    return lambda batch: parts["inner_objective"]()
