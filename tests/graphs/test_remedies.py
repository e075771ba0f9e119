"""What is said of data and models that do not fit each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far

X = np.ones((6, 3), "float32")
Y = np.ones((6, 1), "float32")
LABELS = np.array([["a"], ["b"]] * 3)
CAST = r"tf.cast\(model\(x\), tf.float32\)"
CODES = "keras.layers.StringLookup"


def net(policy=None):
    layer = keras.layers.Dense(1, dtype=policy)
    return keras.Sequential([keras.Input((3,)), layer])


def fails(message, objective, y=Y, model=None):
    """Expects a message of an objective on a model, x and y."""
    model = model or net()
    rate = far.Hyperparameter(0.1, name="rate")
    with pytest.raises(ValueError, match=message) as raised:
        problem = far.BilevelProblem(
            lambda batch: objective(model, *batch),
            lambda: tf.reduce_sum(model.trainable_variables[0] ** 2),
            *(model, far.GradientDescent(rate), [rate]),
            inner_data=(X, y),
        )
        far.ReverseHG(jit_compile=False).compute(problem, 2)
    return str(raised.value)


OBJECTIVES = [
    lambda model, x, y: tf.reduce_mean((model(x) - y) ** 2),
    lambda model, x, y: tf.reduce_mean((y - model(x)) ** 2),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(objective, policy):
    fails(f"Remedy: cast the output .* {CAST}", objective, model=net(policy))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_data_of_another_dtype(objective, dtype):
    text = fails("Remedy: cast the data before they are", objective, Y.astype(dtype))
    assert "model(x), tf.float32" not in text


@pytest.mark.parametrize(
    "objective",
    [
        *OBJECTIVES,
        lambda model, x, y: keras.losses.BinaryCrossentropy()(y, model(x)),
        lambda model, x, y: tf.reduce_mean(tf.cast(y, tf.float32) * model(x)),
    ],
)
def test_labels_that_are_strings(objective):
    fails(f"Remedy: make integer codes of strings .*{CODES}", objective, LABELS)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_loops_of_keras(name):
    def objective(model, x, y):
        arguments = (x,) if name == "predict" else (x, y)
        return tf.reduce_mean(getattr(model, name)(*arguments))

    model = net()
    model.compile(loss="mse")
    remedy = rf"Remedy: model.{name} has no derivative: call the model, .* model\(x"
    fails(remedy, objective, model=model)


def test_names_of_operations_stay():
    text = fails(
        "Dimensions must be equal",
        lambda model, x, y: tf.reduce_mean(
            tf.subtract(model(x), tf.ones((5, 1)), "difference")
        ),
    )
    assert "5 for 'difference = Sub[T=DT_FLOAT]" in text and "{{" not in text
