"""`Hyperparameter` and FAR-HO's `get_hyperparameter`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far


def test_is_a_trainable_keras_variable():
    rate = far.Hyperparameter(0.25, name="rate")
    assert isinstance(rate, keras.Variable)
    assert rate.trainable
    assert (rate.name, rate.path, rate.shape) == ("rate", "rate", ())
    rate.assign(0.5)
    assert float(2 * rate) == 1.0


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0.5, None, "float32"),
        ([0.5, 1.0], None, "float32"),
        (0.5, "float64", "float64"),
        (np.float64(0.5), None, "float32"),
        (np.log(np.e), None, "float32"),
        ([np.float64(0.5), 1.0], None, "float32"),
        (np.float64(0.5), "float64", "float64"),
        (np.array(0.5), None, "float64"),
        (np.zeros(2), None, "float64"),
        (np.zeros(2, "float32"), None, "float32"),
        (np.zeros(2, "float32"), "float64", "float64"),
        (np.zeros(2, "int64"), "float32", "float32"),
        (tf.zeros(2, tf.float64), None, "float64"),
        (tf.zeros(2, tf.float16), None, "float16"),
    ],
)
def test_dtype(value, dtype, expected):
    variable = far.Hyperparameter(value, dtype=dtype)
    assert variable.dtype == expected
    assert tf.convert_to_tensor(variable).dtype == expected
    np.testing.assert_array_equal(variable, np.asarray(value))


def test_numbers_follow_floatx():
    keras.config.set_floatx("float64")
    for number in (0.1, np.float64(0.1), np.float32(0.5)):
        assert far.Hyperparameter(number).dtype == "float64"
        assert float(far.Hyperparameter(number)) == number


@pytest.mark.parametrize("left", [np.float32([1.0, 3.0]), np.float32(2.0)], ids=str)
def test_numpy_on_the_left(left):
    """As on the left of TensorFlow's own variables."""
    scale, w = far.Hyperparameter(0.5, name="scale"), keras.Variable([1.0, 2.0])
    for value in (left * scale, left + scale, left - scale, left / scale):
        assert tf.is_tensor(value)
    np.testing.assert_allclose(left - scale, left - 0.5)
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w * (left * scale)),
        lambda: tf.reduce_sum(w),
        [w],
        far.GradientDescent(0.1),
        [scale],
    )
    result = far.ReverseHG().compute(problem, 3)
    np.testing.assert_allclose(
        result.hypergradients[0], -0.3 * np.sum(left * np.ones(2)), rtol=1e-6
    )


@pytest.mark.parametrize("constraint", [(0, 1), [0.0, 1.0], "nonneg", 3], ids=str)
def test_constraints_of_a_wrong_kind(constraint):
    with pytest.raises(ValueError, match=r"`constraint` .*far.constraints.Interval.*="):
        far.Hyperparameter(0.1, constraint=constraint)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), "dense .*RaggedTensor"),
        (tf.sparse.from_dense([0.0, 1.0]), "dense .*SparseTensor"),
        (np.zeros((0, 2)), r"must have elements.*shape=\(0, 2\)"),
    ],
    ids=["ragged", "sparse", "empty"],
)
def test_values_of_a_wrong_kind(value, message):
    with pytest.raises(ValueError, match=message):
        far.Hyperparameter(value)


@pytest.mark.parametrize(
    "initializer",
    [
        "ones",
        keras.initializers.Constant(1.0),
        lambda shape, dtype: tf.constant(np.ones(shape), dtype),
    ],
)
def test_initializer_with_a_shape(initializer):
    variable = far.Hyperparameter(initializer, shape=(2, 3), dtype="float64")
    np.testing.assert_array_equal(variable, np.ones((2, 3)))
    assert variable.dtype == "float64"


@pytest.mark.parametrize("constraint", ["non_neg", keras.constraints.NonNeg()])
def test_constraint_by_name_and_by_object(constraint):
    variable = far.Hyperparameter([-1.0, 2.0], constraint=constraint)
    assert isinstance(variable.constraint, keras.constraints.NonNeg)
    np.testing.assert_array_equal(variable, [-1.0, 2.0])  # Not yet applied.
    keras.optimizers.SGD(1.0).apply([tf.constant([0.0, 0.5])], [variable])
    np.testing.assert_array_equal(variable, [0.0, 1.5])


def test_own_constraint_is_kept_and_none_is_default():
    simplex = far.constraints.UnitSimplex()
    assert far.Hyperparameter([1.0, 0.0], constraint=simplex).constraint is simplex
    assert far.Hyperparameter(1.0).constraint is None


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1, None),
        (np.array([1, 2]), None),
        (1.0, "int32"),
        (True, "bool"),
        (tf.constant(3), None),
    ],
)
def test_other_than_floating_dtypes_raise(value, dtype):
    with pytest.raises(ValueError, match=r"floating dtype.* Received: name=count, "):
        far.Hyperparameter(value, dtype=dtype, name="count")


def test_get_hyperparameter_takes_far_hos_positional_arguments():
    collections, scalar = None, True
    variable = far.get_hyperparameter(
        "rates", [-1.0, 2.0], (2,), "float64", collections, scalar, "non_neg"
    )
    assert isinstance(variable, far.Hyperparameter)
    assert (variable.name, variable.shape, variable.dtype) == ("rates", (2,), "float64")
    assert isinstance(variable.constraint, keras.constraints.NonNeg)
    np.testing.assert_array_equal(variable, [-1.0, 2.0])


def test_get_hyperparameter_from_a_shape_is_glorot_uniform():
    variable = far.get_hyperparameter("kernel", shape=(100, 50))
    values = np.abs(variable.numpy())
    limit = np.sqrt(6 / (100 + 50))
    assert 0.99 * limit < values.max() <= limit
    assert values.mean() == pytest.approx(limit / 2, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initializer": 1.0, "collections": ["a"]}, r"`collections` .*\['a'\]"),
        ({}, r"needs an `initializer` or a `shape`. Received: name=rate"),
        ({"initializer": np.array(1)}, r"floating dtype.* name=rate, dtype=int64"),
        ({"initializer": "ones"}, r"`shape`"),
    ],
)
def test_get_hyperparameter_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        far.get_hyperparameter("rate", **arguments)


@pytest.mark.parametrize("initializer", ["0.1", None, "no_such"])
def test_what_a_hyperparameter_starts_from(initializer):
    with pytest.raises(ValueError, match="`initializer` must be a number, an array"):
        far.Hyperparameter(initializer, shape=(2,))
    assert far.Hyperparameter("ones", shape=(2,)).numpy().tolist() == [1.0, 1.0]
