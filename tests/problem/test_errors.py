"""Every misuse gets an error that names the object and what was received."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.hypergradients import execution


@pytest.fixture
def parts():
    """The arguments of a small, right problem, to be spoilt one at a time."""
    w = keras.Variable([1.0, 2.0], name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    return {
        "inner_objective": lambda: tf.reduce_sum(w * w),
        "outer_objective": lambda: tf.reduce_sum(w * w),
        "variables": [w],
        "dynamics": far.GradientDescent(rate),
        "hyperparameters": [rate],
    }


def compute(parts, num_steps=3, **changes):
    problem = far.BilevelProblem(**{**parts, **changes})
    return far.ReverseHG(jit_compile=False).compute(problem, num_steps)


def fails(*fragments):
    """Expects a ValueError whose message holds all fragments."""
    pattern = "".join(f"(?=.*{fragment})" for fragment in fragments)
    return pytest.raises(ValueError, match=f"(?s){pattern}")


def test_a_hyperparameter_that_nothing_depends_on(parts):
    idle = far.Hyperparameter(1.0, name="idle")
    with fails("Nothing depends", "`idle`", "Received"):
        compute(parts, hyperparameters=[*parts["hyperparameters"], idle])


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

        with fails(f"`{role}` .loss. failed", "batch", r"Received: arguments=\[\]"):
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


class TestDynamics:
    def test_of_a_wrong_kind(self, parts):
        with fails("`dynamics`", "far.Momentum", "Received: dynamics='sgd'"):
            compute(parts, dynamics="sgd")

    def test_an_argument_of_a_wrong_kind(self, parts):
        with fails("`learning_rate` of GradientDescent", "Received: 'fast'"):
            compute(parts, dynamics=far.GradientDescent("fast"))

    def test_an_argument_out_of_bounds(self):
        with fails("`momentum` of Momentum", r"\[0.0, 1.0\]", "momentum=1.5"):
            far.Momentum(0.1, momentum=1.5)

    @pytest.mark.parametrize(
        "value",
        [1.0, np.float32(1.5), np.array([0.5, 1.0]), -0.1, [("w", 2.0)], {"w": 2.0}],
        ids=str,
    )
    def test_other_forms_of_numbers_out_of_bounds(self, parts, value):
        if isinstance(value, list):
            value = [(parts["variables"][0], 2.0)]
        with fails("`beta_1` of Adam", r"\[0.0, 1.0\)", "beta_1="):
            compute(parts, dynamics=far.Adam(0.1, beta_1=value))

    def test_an_update_that_returns_something_else(self, parts):
        class Wrong(far.Dynamics):
            def update(self, variable, gradient, slots, step):
                return variable - gradient

        with fails("`update` of Wrong", "a tuple of 0 slots", "Received: result="):
            compute(parts, dynamics=Wrong())

    def test_an_argument_of_another_dtype(self, parts):
        double = far.Hyperparameter(0.1, dtype="float64", name="double")
        with fails("`learning_rate`", "`w` of float32", "`double` of float64"):
            compute(parts, dynamics=far.GradientDescent(double))

    def test_an_argument_that_does_not_broadcast(self, parts):
        rates = far.Hyperparameter(tf.ones(5), name="rates")
        with fails("`learning_rate`", r"\(2,\)", r"\(5,\)", "`rates`"):
            compute(parts, dynamics=far.GradientDescent(rates), hyperparameters=[rates])

    def test_a_pattern_that_matches_nothing(self, parts):
        with fails("`learning_rate`", "'dense/.*' matches no variable", "`w`"):
            compute(parts, dynamics=far.GradientDescent({"dense/.*": 0.1}))

    def test_a_pattern_that_comes_too_late(self, parts):
        with fails("`learning_rate`", r"'\^w' matches have a value", "the first"):
            compute(parts, dynamics=far.GradientDescent({".*": 0.1, "^w": 0.2}))

    def test_a_pair_that_comes_too_late(self, parts):
        (w,) = parts["variables"]
        with fails("`learning_rate`", "`w` comes after", "first counts"):
            compute(parts, dynamics=far.GradientDescent([(w, 0.1), (w, 0.2)]))

    def test_a_key_that_is_no_pattern(self, parts):
        with fails("`learning_rate`", "regular expressions", r"'\*'"):
            compute(parts, dynamics=far.GradientDescent({"*": 0.1}))

    @pytest.mark.parametrize("jit_compile", [True, False])
    @pytest.mark.parametrize("index", [lambda v, t: v[t], tf.gather])
    def test_a_schedule_that_ends_too_soon(self, parts, index, jit_compile):
        """XLA would take the last entry for all steps beyond it."""
        rates = far.Hyperparameter(tf.fill([3], 0.1), name="rates")

        def schedule(step):
            return index(tf.convert_to_tensor(rates), step)

        problem = far.BilevelProblem(
            **{
                **parts,
                "dynamics": far.GradientDescent(schedule),
                "hyperparameters": [rates],
            }
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        with fails("`learning_rate`", "ends before step 3", "schedule"):
            mode.compute(problem, 4)
        result = mode.compute(problem, 3)
        with fails("`learning_rate`", "ends before step 5"):
            mode.compute(problem, 3, start=result.end)

    @pytest.mark.parametrize(
        "schedule",
        [lambda: 0.1, lambda t: [0.1, 0.2][t], lambda t: None, lambda t: "fast"],
    )
    def test_a_schedule_that_makes_no_number(self, parts, schedule):
        with fails("`learning_rate` of GradientDescent ", "Received: .*lambda"):
            compute(parts, dynamics=far.GradientDescent(schedule))

    def test_a_schedule_that_reads_trained_variables(self, parts):
        (w,) = parts["variables"]
        with fails("`dynamics` reads `w`", "on the step and on hyperparameters"):
            compute(
                parts,
                dynamics=far.GradientDescent(lambda t: 0.1 / (1 + tf.norm(w))),
                outer_objective=lambda: parts["hyperparameters"][0] * tf.norm(w),
            )

    def test_a_pair_with_a_foreign_variable(self, parts):
        foreign = keras.Variable(1.0, name="foreign")
        with fails("`learning_rate`", "`foreign`", "`w`"):
            compute(parts, dynamics=far.GradientDescent([(foreign, 0.1)]))

    def test_variables_without_a_value(self, parts):
        other = keras.Variable(1.0, name="other")
        (w,) = parts["variables"]
        with fails("`learning_rate`", "no value", "`other`"):
            compute(
                parts,
                variables=[w, other],
                dynamics=far.GradientDescent([(w, 0.1)]),
            )

    def test_not_pairs(self, parts):
        with fails("`learning_rate`", "pairs", "Received the element: 0.1"):
            compute(parts, dynamics=far.GradientDescent([0.1]))


class TestInitialValues:
    def test_twice_of_one_variable(self, parts):
        (w,) = parts["variables"]
        with fails("`initial_values`", "`w` twice"):
            compute(parts, initial_values=[(w, tf.ones(2)), (w, tf.ones(2))])

    def test_of_a_foreign_variable(self, parts):
        foreign = keras.Variable(1.0, name="foreign")
        with fails("`initial_values`", "'foreign'"):
            compute(parts, initial_values=[(foreign, 1.0)])

    def test_of_a_wrong_shape(self, parts):
        (w,) = parts["variables"]
        with fails("`w`", r"\(2,\)", r"shape=.*\[3\]"):
            compute(parts, initial_values=[(w, tf.ones(3))])

    def test_from_a_callable_of_a_wrong_dtype(self, parts):
        (w,) = parts["variables"]
        with fails("`w`", "float32", "float64"):
            compute(parts, initial_values=[(w, lambda: tf.ones(2, tf.float64))])

    @pytest.mark.parametrize(
        "value", ["ones", None, lambda: None, keras.initializers.Ones()], ids=range(4)
    )
    def test_of_a_wrong_kind(self, parts, value):
        (w,) = parts["variables"]
        with fails("The initial value of `w` must", "Received: "):
            compute(parts, initial_values=[(w, value)])


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


class TestNonFinite:
    """NaN and infinity are reported with the step at which they begin."""

    def parts(self, hyperparameters=1, **changes):
        w = keras.Variable([1.0, 2.0], name="w")
        rates = far.Hyperparameter(tf.fill([10], 0.1), name="rates")
        return {
            "inner_objective": lambda c: tf.reduce_sum(c * w),
            "outer_objective": lambda: tf.reduce_sum(w * w),
            "variables": [w],
            "dynamics": far.GradientDescent(lambda step: rates[step]),
            "hyperparameters": [rates],
            **changes,
        }

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("jit_compile", [True, False])
    def test_in_the_state(self, value, jit_compile):
        numbers = np.ones(10, "float32")
        numbers[6] = value
        parts = self.parts(inner_data=lambda step: tf.gather(numbers, step))
        problem = far.BilevelProblem(**parts)
        (w,), (rates,) = parts["variables"], parts["hyperparameters"]
        mode = far.ReverseHG(jit_compile=jit_compile)
        with pytest.raises(far.NonFiniteError, match=r"step 6 .*s_7.*`w`") as error:
            mode.compute(problem, 10)
        assert error.value.step == 6
        # Nothing is lost: variables and hyperparameters are as they were.
        assert w.numpy().tolist() == [1.0, 2.0]
        np.testing.assert_allclose(rates, 0.1)

    def test_in_a_hyperparameter(self):
        parts = self.parts(inner_data=1.0)
        parts["hyperparameters"][0].assign(tf.fill([10], np.nan))
        with pytest.raises(far.NonFiniteError, match="hyperparameter `rates`"):
            compute(parts)

    def test_in_the_initial_state(self):
        parts = self.parts(inner_data=1.0)
        parts["variables"][0].assign([np.nan, 1.0])
        with pytest.raises(far.NonFiniteError, match=r"initial state .*`w`"):
            compute(parts)

    def test_in_the_inner_objective_alone(self):
        """A constant infinity leaves the gradient and the state as they are."""
        parts = self.parts(
            inner_data=lambda step: tf.where(step == 2, np.inf, 1.0),
        )
        (w,) = parts["variables"]
        parts["inner_objective"] = lambda c: tf.reduce_sum(w) + c
        with pytest.raises(
            far.NonFiniteError, match=r"`inner_objective` .*step 2 .*inf"
        ) as error:
            compute(parts, 10)
        assert error.value.step == 2

    @pytest.mark.parametrize("role", ["inner", "outer"])
    @pytest.mark.parametrize("library", ["tf", "keras"])
    def test_labels_out_of_range(self, role, library):
        """Of which XLA makes NaN, and TensorFlow's own kernel an error."""
        logits = keras.Variable(np.zeros((4, 3), "float32"), name="logits")
        cross_entropy = {
            "tf": tf.nn.sparse_softmax_cross_entropy_with_logits,
            "keras": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        }[library]

        def loss(labels):
            return tf.reduce_mean(cross_entropy(labels, tf.convert_to_tensor(logits)))

        right, wrong = tf.constant([0, 1, 2, 0]), tf.constant([0, 1, 3, 0])
        data = {"inner_data": right, "outer_data": right}
        if role == "inner":  # In step 2 only.
            data["inner_data"] = lambda step: tf.where(step == 2, wrong, right)
        else:
            data["outer_data"] = wrong
        rate = far.Hyperparameter(0.1, name="rate")
        problem = far.BilevelProblem(
            loss, loss, [logits], far.GradientDescent(rate), [rate], **data
        )
        for compiled, error in ((True, far.NonFiniteError), (False, ValueError)):
            with pytest.raises(error) as caught:
                far.ReverseHG(jit_compile=compiled).compute(problem, 4)
            said = str(caught.value)
            assert "label value of 3 which is outside the valid range of [0, 3)" in said
            assert (
                "labels are out of range: give the last layer a unit for each" in said
            )
            assert "learning rate" not in said
            if compiled:
                assert (
                    "in step 2 (" if role == "inner" else "`outer_objective`"
                ) in said
                assert f"of {__file__} (`" in said

    def test_a_squared_norm_at_zero(self):
        """Its derivative is 0, but by XLA's rule for roots NaN."""
        w, rate = keras.Variable([0.0, 0.0]), far.Hyperparameter(0.1, name="rate")

        def loss():
            return tf.norm(w) ** 2 + tf.reduce_sum((w - 1.0) ** 2)

        problem = far.BilevelProblem(loss, loss, [w], far.GradientDescent(rate), [rate])
        with fails(
            "step 0", "Without XLA the same is finite", "root or norm"
        ) as caught:
            far.ReverseHG(jit_compile=True).compute(problem, 2)
        assert "learning rate" not in str(caught.value)

    def test_what_first_makes_it(self):
        def outcome(function, start, rate, data=None, num_steps=4):
            w = keras.Variable([start], name="w")
            speed = far.Hyperparameter(rate, name="rate")
            problem = far.BilevelProblem(
                lambda *batch: tf.reduce_sum(function(tf.convert_to_tensor(w), *batch)),
                lambda: tf.reduce_sum(w * w),
                [w],
                far.GradientDescent(speed),
                [speed],
                inner_data=data,
            )
            with pytest.raises(far.NonFiniteError) as caught:
                far.ReverseHG().compute(problem, num_steps)
            return str(caught.value)

        said = outcome(lambda w: tf.math.log(w - 0.5), 1.0, 1.0)
        assert "first made by Log in line" in said
        assert f"of {__file__} (`said = outcome(lambda w: tf.math.log" in said
        assert "a logarithm or division" in said
        assert "learning rate" not in said
        said = outcome(lambda w: w**4, 2.0, 1e3, num_steps=20)
        assert "A usual cause: too large a learning rate." in said
        said = outcome(lambda w: 3.0 * w, 2.0, 3e38)  # In the update itself.
        assert "too large a learning rate" in said
        data = tf.where(tf.range(8.0)[:, tf.newaxis] == 5, np.nan, 1.0)
        batches = far.Batches(data, 2, shuffle=False)
        said = outcome(lambda w, batch: w * batch, 2.0, 0.1, batches)
        assert "in step 2 (" in said
        assert "The batch holds NaN or infinity." in said

    def test_in_the_outer_objective(self):
        parts = self.parts(inner_data=1.0)
        (w,) = parts["variables"]
        parts["outer_objective"] = lambda: tf.reduce_sum(tf.math.log(-w))
        with pytest.raises(far.NonFiniteError, match=r"`outer_objective`.*nan"):
            compute(parts)

    def test_in_the_backward_pass(self):
        """√ has an infinite derivative at 0, which only step 4 meets."""
        scale = far.Hyperparameter(0.0, name="scale")
        parts = self.parts(
            inner_data=lambda step: tf.where(step == 4, 1.0, 0.0),
            dynamics=far.GradientDescent(0.1),
        )
        (w,) = parts["variables"]
        parts["inner_objective"] = lambda c: tf.reduce_sum(
            w * (1 + tf.sqrt(scale + 1 - c))
        )
        parts["hyperparameters"] = [scale]
        with pytest.raises(
            far.NonFiniteError, match=r"hypergradient of `scale`.*step 4 "
        ) as error:
            compute(parts, 10)
        assert error.value.step == 4

    @pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
    def test_where_no_step_makes_it(self, mode):
        """w ← 4w(1 − w) stays in [0, 1], while its derivative doubles."""
        w, rate = keras.Variable(0.3, name="w"), far.Hyperparameter(1.0, name="rate")
        problem = far.BilevelProblem(
            lambda: (4 / 3) * w**3 - 1.5 * w**2,
            lambda: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [rate],
        )
        with fails(r"\(steps 0 to 299\) is, but their product overflows") as error:
            mode.compute(problem, 300)
        assert error.value.step is None

    def test_a_bare_variable_is_put_back(self):
        w = tf.Variable(1.0, name="w")
        rate = tf.Variable(1e30, name="rate")
        problem = far.BilevelProblem(
            lambda: w**4, lambda: w * w, [w], far.GradientDescent(rate), [rate]
        )
        with pytest.raises(far.NonFiniteError, match=r"step 1 .*`w`"):
            far.ReverseHG().compute(problem, 5)
        assert float(w) == 1.0

    def test_the_hyper_optimizer_keeps_its_hyperparameters(self):
        rate = far.Hyperparameter(1e30, name="rate")
        w = keras.Variable(1.0, name="w")
        problem = far.BilevelProblem(
            lambda: w**4, lambda: w * w, [w], far.GradientDescent(rate), [rate]
        )
        optimizer = far.HyperOptimizer(problem)
        with pytest.raises(far.NonFiniteError, match="step 1 "):
            optimizer.fit(3, num_steps=5, verbose=0)
        assert float(rate) == np.float32(1e30)


class TestHyperOptimizer:
    def test_of_no_problem(self):
        with fails("`problem`", "Received: 'problem'"):
            far.HyperOptimizer("problem")

    def test_of_an_empty_list(self):
        with fails("`problem`", "empty"):
            far.HyperOptimizer([])

    def test_problems_with_other_hyperparameters(self, parts):
        other = far.Hyperparameter(0.1, name="other")
        one = far.BilevelProblem(**parts)
        two = far.BilevelProblem(
            **{
                **parts,
                "hyperparameters": [other],
                "dynamics": far.GradientDescent(other),
            }
        )
        with fails("same hyperparameters", "path=rate,", "Received: .*path=other,"):
            far.HyperOptimizer([one, two])

    def test_wrong_arguments(self, parts):
        problem = far.BilevelProblem(**parts)
        with fails("`hypergradient`", "Received: 'reverse'"):
            far.HyperOptimizer(problem, hypergradient="reverse")
        with fails("`strategy`", "MirroredStrategy"):
            far.HyperOptimizer(problem, strategy=tf.distribute.get_strategy())
        for wrong in (far.ReverseHG, keras.optimizers.SGD()):
            with fails("`hypergradient`", "not a class", "`optimizer=`"):
                far.HyperOptimizer(problem, wrong)
        optimizer = far.HyperOptimizer(problem)
        with fails("`mode`", "restart", "Received: mode='cold'"):
            optimizer.run(3, mode="cold")
        with fails("`num_steps`", "num_steps=0"):
            optimizer.run(0)
        with fails("`hyper_iterations`", "hyper_iterations=0"):
            optimizer.fit(0, num_steps=3)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ({"epochs": 3}, "`hyper_iterations`"),
            ({"steps_per_epoch": 3}, "`num_steps`"),
            ({"num_step": 3}, "`num_steps`"),
            ({"validation_data": 3}, "`outer_data` of the BilevelProblem"),
        ],
        ids=str,
    )
    def test_other_names_of_arguments(self, parts, given, meant):
        (name,) = given
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        words = rf"has no argument `{name}`. Did you mean {meant}\? .*={given[name]}"
        with pytest.raises(TypeError, match=f"`HyperOptimizer.fit` {words}"):
            tuner.fit(**given)
        with pytest.raises(TypeError, match=f"`HyperOptimizer.run` {words}"):
            tuner.run(**given)
        with pytest.raises(TypeError, match=f"compute` {words}"):
            far.ReverseHG().compute(tuner.problems[0], **given)

    def test_a_name_that_is_like_no_other(self, parts):
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        with pytest.raises(TypeError, match=r"no argument `zzz`\. Received: zzz=1"):
            tuner.fit(3, 3, zzz=1)

    @pytest.mark.parametrize("wrong", ["x", print, keras.callbacks.History], ids=str)
    def test_callbacks(self, parts, wrong):
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        right = keras.callbacks.History()
        with fails("`callbacks`", "LambdaCallback", r"Received: callbacks\[1\]="):
            tuner.fit(1, 2, callbacks=[right, wrong], verbose=0)
        with fails("`callbacks`", r"Received: callbacks\[0\]="):
            tuner.fit(1, 2, callbacks=wrong, verbose=0)
        for callbacks in (right, (right,), keras.callbacks.CallbackList([right])):
            tuner.fit(1, 2, callbacks=callbacks, verbose=0)
            assert right.epoch[-1] == 0
