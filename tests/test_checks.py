"""What messages show of values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.checks import KERAS_NAMES, did_you_mean, require, shown

LONG = np.ones((40, 3), "float32")
SPARSE = tf.sparse.from_dense(LONG)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("relu", "'relu'"),
        ([0.1, 0.2], "[0.1, 0.2]"),
        (np.array([[1.0], [2.0]]), "array([[1.], [2.]])"),
        (LONG, "<ndarray of shape (40, 3) and dtype float32>"),
        (tf.constant(LONG), "<EagerTensor of shape (40, 3) and dtype float32>"),
        (SPARSE, "<SparseTensor of shape (40, 3) and dtype float32>"),
        (keras.Variable(LONG), "<Variable of shape (40, 3) and dtype float32>"),
        ((LONG, 1), "(<ndarray of shape (40, 3) and dtype float32>, 1)"),
        ({"x": LONG}, "{'x': <ndarray of shape (40, 3) and dtype float32>}"),
        (list(range(1100)), "[0, 1, 2, 3, … 1096 more]"),
        ("a" * 200, "'" + "a" * 119 + " …"),
    ],
)
def test_values(value, text):
    assert shown(value) == text


def test_require_shows_one_line():
    with pytest.raises(ValueError, match=r"^No. Received: x=<ndarray of shape .*>$"):
        require(False, "No.", x=LONG)


def test_arguments_of_keras_are_shown_in_one_line():
    @did_you_mean(**KERAS_NAMES)
    def fit(hyper_iterations):
        return hyper_iterations

    with pytest.raises(TypeError) as raised:
        fit(1, validation_data=(LONG, LONG))
    shape = "<ndarray of shape (40, 3) and dtype float32>"
    assert str(raised.value).endswith(f"Received: validation_data=({shape}, {shape})")


def test_representations():
    """Of what is short, in one line."""
    batches = far.Batches((LONG, np.arange(40)), 8, seed=3)
    assert repr(batches) == (
        "Batches(shapes=([40, 3], [40]), batch_size=8, seed=3, shuffle=True)"
    )
    assert repr(far.constraints.Interval(0, 0.5)) == "Interval(low=0, high=0.5)"
    assert repr(far.constraints.UnitSimplex()) == "UnitSimplex(axis=-1)"
    assert repr(far.constraints.L1Ball(2.0)) == "L1Ball(radius=2.0)"
    simplex = far.constraints.CappedSimplex(3.0)
    assert repr(simplex) == "CappedSimplex(total=3.0, upper=1.0)"
    assert repr(far.regularizers.L2(0.5)) == "L2(0.5)"
    decay = far.Hyperparameter(0.1, name="decay")
    assert repr(far.regularizers.L1(decay)) == "L1(`decay`)"
    assert repr(far.Checkpoint("runs")) == (
        "Checkpoint(directory='runs', every=1, max_to_keep=2)"
    )
    schedule = far.Schedule.exponential(0.1, 3, 0.5)
    assert repr(schedule) == (
        "Schedule.exponential(initial=0.1, decay_steps=3, decay_rate=0.5)"
    )
