"""The loss of connectionist temporal classification."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches.ctc import _own, ctc_loss
from tests.helpers import assert_close, in_tiers

RANDOM = np.random.RandomState(0)
LOGITS = RANDOM.randn(7, 4, 5).astype("float32")  # Frames, sequences, classes.
# Repeated labels, and sequences of all lengths; what is beyond them does not count.
LABELS = np.array([[1, 2, 2], [3, 3, 0], [4, 1, 0], [0, 0, 0]])
LABEL_LENGTH, LOGIT_LENGTH = np.array([3, 2, 1, 0]), np.array([7, 5, 3, 2])


def both(*arguments, **options):
    """Values and gradients of TensorFlow's own and of the patch."""
    results = []
    for function in (_own, ctc_loss):
        logits = tf.constant(arguments[1])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(arguments[0], logits, *arguments[2:], **options)
        results.append((value, tape.gradient(value, logits)))
    return results


class TestBesideTensorFlow:
    def assert_equal(self, results):
        (value, gradient), (found, slope) = results
        np.testing.assert_allclose(found, value, rtol=1e-5)
        np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=2e-6)
        assert found.dtype == value.dtype

    def test_dense_labels(self):
        self.assert_equal(both(LABELS, LOGITS, LABEL_LENGTH, LOGIT_LENGTH))

    def test_batch_major(self):
        logits = LOGITS.transpose(1, 0, 2)
        self.assert_equal(
            both(LABELS, logits, LABEL_LENGTH, LOGIT_LENGTH, logits_time_major=False)
        )

    @pytest.mark.parametrize("blank", [2, -1])
    def test_another_blank(self, blank):
        labels = np.array([[1, 3, 3], [3, 3, 0], [0, 1, 0], [0, 0, 0]])
        self.assert_equal(
            both(labels, LOGITS, LABEL_LENGTH, LOGIT_LENGTH, blank_index=blank)
        )

    def test_sparse_labels(self):
        labels = tf.sparse.from_dense(np.array([[1, 2, 2], [3, 3, 0], [4, 0, 0]]))
        labels = tf.cast(labels, tf.int32)
        self.assert_equal(
            both(labels, LOGITS[:, :3], None, LOGIT_LENGTH[:3], blank_index=0)
        )

    def test_what_has_no_alignment(self):
        """Three labels in two frames: finite in TensorFlow."""
        (value, _), (found, slope) = both(LABELS[:1], LOGITS[:2, :1], [3], [2])
        assert float(value[0]) > 700
        np.testing.assert_allclose(found, value, rtol=1e-6)
        assert np.all(np.isfinite(slope))

    def test_sparse_labels_that_have_no_alignment(self):
        """Of which TensorFlow's kernel makes an error, that XLA would not."""
        labels = tf.sparse.from_dense(tf.constant(LABELS[:1], tf.int32))
        arguments = labels, LOGITS[:2, :1], None, np.array([2])
        with pytest.raises(tf.errors.InvalidArgumentError, match="Not enough time"):
            _own(*arguments, blank_index=0)
        with tf.GradientTape() as tape:
            logits = tf.constant(LOGITS[:2, :1])
            tape.watch(logits)
            loss = ctc_loss(labels, logits, *arguments[2:], blank_index=0)
        assert float(loss[0]) == np.inf

    def test_values_where_nothing_is_differentiated(self):
        arguments = LABELS, LOGITS, LABEL_LENGTH, LOGIT_LENGTH
        np.testing.assert_array_equal(ctc_loss(*arguments), _own(*arguments))
        assert tf.nn.ctc_loss is ctc_loss


def loss(w, labels=LABELS, blank=0):
    """Of logits that are a curve through the weights, in float64."""
    logits = tf.constant(LOGITS, tf.float64) * w[0] + tf.sin(w[1] * LOGITS + w[2])
    losses = tf.nn.ctc_loss(
        labels, logits, LABEL_LENGTH, LOGIT_LENGTH, blank_index=blank
    )
    return tf.reduce_mean(losses)


def trained(rate):
    """The loss after three steps of plain eager training."""
    w = tf.Variable([0.7, 0.4, -0.3], dtype=tf.float64)
    for _ in range(3):
        with tf.GradientTape() as tape:
            value = loss(tf.convert_to_tensor(w))
        w.assign_sub(rate * tape.gradient(value, w))
    with tf.GradientTape() as tape:  # So that it is of float64.
        tape.watch(w)
        return float(loss(tf.convert_to_tensor(w)))


@pytest.mark.parametrize(
    "mode",
    in_tiers(
        [
            far.ReverseHG(),
            far.ReverseHG(jit_compile=False),
            far.ForwardHG(),
            far.ForwardHG(jit_compile=False),
        ],
        [far.ReverseHG(), far.ForwardHG(jit_compile=False)],
    ),
    ids=str,
)
def test_hypergradients(mode):
    w = keras.Variable(np.array([0.7, 0.4, -0.3]), dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, dtype="float64", name="rate")
    problem = far.BilevelProblem(
        lambda: loss(tf.convert_to_tensor(w)),
        lambda: loss(tf.convert_to_tensor(w)),
        [w],
        far.GradientDescent(rate),
        [rate],
    )
    result = mode.compute(problem, 3)
    assert_close([result.outer_value], [trained(0.1)], 1e-10)
    expected = (trained(0.10001) - trained(0.09999)) / 2e-5
    assert_close(result.hypergradients, [expected], 1e-6)


def test_a_recurrent_speech_model():
    """As Keras has it, where a batch has sequences of several lengths."""
    model = keras.Sequential(
        [keras.Input((7, 3)), keras.layers.GRU(4, return_sequences=True)]
    )
    model.add(keras.layers.Dense(5))
    x = np.random.RandomState(1).randn(4, 7, 3).astype("float32")
    labels = np.array([[1, 2, 2], [3, 3, 0], [4, 0, 0], [2, 0, 0]])
    rate = far.Hyperparameter(0.1, name="rate")

    def objective():
        return keras.losses.CTC()(labels, model(x))

    problem = far.BilevelProblem(
        objective, objective, model, far.GradientDescent(rate), [rate]
    )
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(problem, 3, write_back=False)
    values = []
    for value in (0.102, 0.098):
        rate.assign(value)
        values.append(float(mode.compute(problem, 3, write_back=False).outer_value))
    assert_close(result.hypergradients, [(values[0] - values[1]) / 0.004], 5e-3)
