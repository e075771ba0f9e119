"""Wrong arguments of a problem get an error that names them and what was received."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.misuse import compute, fails


def test_a_hyperparameter_that_nothing_depends_on(parts):
    idle = far.Hyperparameter(1.0, name="idle")
    with fails("Nothing depends", "`idle`", r"sum\(model\.losses\)", "Received"):
        far.BilevelProblem(
            **parts | {"hyperparameters": [*parts["hyperparameters"], idle]}
        )


def test_an_additive_constant_counts_as_no_dependence(parts):
    """λ that shifts the loss but not its gradient changes no training run."""
    idle = far.Hyperparameter(1.0, name="idle")
    inner = parts["inner_objective"]
    with fails("Nothing depends", "`idle`"):
        compute(
            parts,
            inner_objective=lambda: inner() + idle,
            hyperparameters=[*parts["hyperparameters"], idle],
        )


@pytest.mark.parametrize("role", ["inner_objective", "outer_objective"])
class TestObjectives:
    def test_not_a_scalar(self, parts, role):
        (w,) = parts["variables"]

        def vector_loss():
            return w * w

        with fails(f"`{role}`", "vector_loss", "scalar", r"shape \(2,\)"):
            compute(parts, **{role: vector_loss})

    def test_none(self, parts, role):
        with fails(f"`{role}`", "scalar", "Received: None"):
            compute(parts, **{role: lambda: None})

    def test_wrong_dtype(self, parts, role):
        good = parts[role]
        with fails(f"`{role}`", "float32", "Received: float64"):
            compute(parts, **{role: lambda: tf.cast(good(), tf.float64)})

    def test_not_callable(self, parts, role):
        with fails(f"`{role}`", "callable", "Received: 3"):
            compute(parts, **{role: 3})

    def test_data_that_are_not_given(self, parts, role):
        def loss(batch):
            return tf.reduce_sum(batch)

        data = role.replace("objective", "data")
        with fails(f"`{role}` .loss. is called without", f"`{data}` is None: give it"):
            compute(parts, **{role: loss})

    def test_a_branch_in_a_nested_tf_function(self, parts, role):
        good = parts[role]

        @tf.function
        def doubled(value):
            if value > 0:
                return 2 * value
            return value

        with fails(f"`{role}`", "branches in Python", "tf.cond"):
            compute(parts, **{role: lambda: doubled(good())})

    def test_data_of_a_wrong_dtype(self, parts, role):
        (w,) = parts["variables"]
        data = np.ones((4, 2))  # float64, as NumPy makes it

        def loss(batch):
            return tf.reduce_sum(tf.linalg.matvec(batch, w.value))

        with fails(f"`{role}`", "loss", r"float64\(4, 2\)", "float32"):
            compute(parts, **{role: loss, role.replace("objective", "data"): data})


def test_an_outer_objective_without_the_variables(parts):
    """Such as an accuracy, which has no derivative."""
    (w,) = parts["variables"]
    with fails("`outer_objective` does not depend", "`?w`?"):
        compute(
            parts,
            outer_objective=lambda: tf.reduce_sum(tf.cast(w.value > 0, tf.float32)),
        )


def test_a_constant_outer_objective(parts):
    with fails("`outer_objective` does not depend", "`?w`?"):
        far.BilevelProblem(**parts | {"outer_objective": lambda: tf.constant(1.0)})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    w = keras.Variable(1.0, dtype=dtype, name="w")
    rate = far.Hyperparameter(0.1, dtype=dtype, name="rate")
    with fails("must be float32 or float64", "mixed_bfloat16", f"dtype='{dtype}'"):
        far.BilevelProblem(
            lambda: w * w, lambda: 1.0 * w, [w], far.GradientDescent(rate), [rate]
        )


def model_problem(layer, training):
    """Of a model with such a layer, on data where it matters."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), layer])
    rate = far.Hyperparameter(0.1, name="rate")
    x = tf.constant([[1.0, 2.0], [0.5, -1.0]])
    return far.BilevelProblem(
        lambda: tf.reduce_mean(model(x, training=training) ** 2),
        lambda: tf.reduce_mean(model(x) ** 2),
        model,
        far.GradientDescent(rate),
        [rate],
    )


@pytest.mark.parametrize(
    "kind", ["BatchNormalization", "Dropout", "GaussianNoise", "SpatialDropout1D"]
)
def test_layers_in_inference_mode(kind):
    arguments = {"BatchNormalization": ()}.get(kind, (0.5,))

    def make():
        layer = getattr(keras.layers, kind)(*arguments, name="layer")
        if kind == "SpatialDropout1D":
            return keras.Sequential([keras.layers.Reshape((3, 1)), layer])
        return layer

    with pytest.warns(UserWarning, match="`inner_objective` calls layer in inference"):
        model_problem(make(), training=False)
    model_problem(make(), training=True)  # Warnings are errors here.
    frozen = make()
    frozen.trainable = False
    model_problem(frozen, training=False)


@pytest.mark.parametrize("where", ["objective", "data"])
def test_random_numbers_of_numpy(parts, where):
    """They are drawn once, in a trace: the objective is that of one draw."""
    (w,) = parts["variables"]

    def drawn(*_):
        return np.random.rand(2).astype("float32")

    changes = {
        "objective": {"inner_objective": lambda: tf.reduce_sum(w * drawn() * w)},
        "data": {
            "inner_objective": lambda c: tf.reduce_sum(w * c * w),
            "inner_data": lambda step: tf.constant(drawn(step)),
        },
    }[where]
    with pytest.warns(UserWarning, match="by NumPy: once"):
        far.BilevelProblem(**parts | changes)
    far.BilevelProblem(**parts)


def test_an_objective_without_the_variables(parts):
    with fails("`inner_objective`", "does not depend", "`w`"):
        compute(parts, inner_objective=lambda: tf.constant(1.0))


def test_a_variable_that_the_objective_does_not_read(parts):
    unread = keras.Variable(5.0, name="unread")
    with pytest.warns(UserWarning, match="`unread`"):
        compute(parts, variables=[*parts["variables"], unread])
    assert float(unread) == 5.0


class TestVariables:
    def test_of_a_wrong_kind(self, parts):
        with fails("`variables`", "keras.Model", "Received: variables='w'"):
            compute(parts, variables="w")

    def test_a_list_with_a_tensor(self, parts):
        with fails("`variables`", r"variables\[0\]="):
            compute(parts, variables=[tf.ones(2)])

    def test_an_empty_list(self, parts):
        with fails("`variables`", "empty"):
            compute(parts, variables=[])

    @pytest.mark.parametrize("kind", [keras.layers.Layer, tf.Module])
    def test_a_list_of_models(self, parts, kind):
        with fails("`variables`", "one.trainable_variables", r"variables\[1\]=<"):
            compute(parts, variables=[*parts["variables"], kind()])

    def test_an_unbuilt_model(self, parts):
        model = keras.Sequential([keras.layers.Dense(1)], name="unbuilt")
        with fails("`variables`", "built", "unbuilt"):
            compute(parts, variables=model)

    def test_an_integer_variable(self, parts):
        count = keras.Variable(3, name="count", dtype="int32")
        with fails("`variables`", "floating", "`count`", "int32"):
            compute(parts, variables=[count])

    def test_twice_the_same(self, parts):
        with fails("`variables`", "`w` twice"):
            compute(parts, variables=parts["variables"] * 2)

    def test_a_hyperparameter_that_is_not_listed(self, parts):
        forgotten = far.Hyperparameter(1.0, name="forgotten")
        with fails("`forgotten` is a Hyperparameter", "would be trained"):
            compute(parts, variables=[*parts["variables"], forgotten])

    def test_both_trained_and_tuned(self, parts):
        with fails("`w`", "`variables`", "`hyperparameters`", "initial_values"):
            compute(parts, hyperparameters=parts["variables"])

    def test_mixed_dtypes(self, parts):
        double = far.Hyperparameter(0.1, dtype="float64", name="double")
        with fails("one dtype", "`w` is float32", "`double` of dtype float64"):
            compute(parts, hyperparameters=[double])

    def test_a_hyperparameter_that_is_not_in_a_list(self, parts):
        (rate,) = parts["hyperparameters"]
        with fails("`hyperparameters` must be a list", "Received: hyperparameters=<"):
            compute(parts, hyperparameters=rate)

    def test_an_integer_hyperparameter(self, parts):
        with fails("floating", "`count`", "int32"):
            compute(parts, hyperparameters=[tf.Variable(3, name="count")])
