"""What Keras' optimizers cannot do as dynamics, and what is said of it."""

import keras
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import hyper
from tests.keras_problem import Small

optimizers = keras.optimizers
pytestmark = pytest.mark.filterwarnings("ignore:.*moves weights by a sign")


class OwnApply(optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)


class NoStep(optimizers.Optimizer):
    pass


class Copying(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self._copies = self.add_optimizer_variables(variables, "copy")
        for copy, variable in zip(self._copies, variables, strict=True):
            copy.assign(variable)


class Counting(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self._count = self.add_variable((), name="count", dtype="int32")

    def update_step(self, gradient, variable, learning_rate):
        self.assign_add(self._count, 1)
        super().update_step(gradient, variable, learning_rate)


class Failing(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        if keras.ops.sum(gradient) > 0:
            super().update_step(gradient, variable, learning_rate)


class Threshold(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        if self.momentum > 0.6:
            gradient = 2.0 * gradient
        super().update_step(gradient, variable, learning_rate)


class Derived(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self.rest = 1.0 - self.momentum


class Copied(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self.same = self.momentum


class Clamped(optimizers.Optimizer):
    def __init__(self, factor=0.5):
        super().__init__(learning_rate=0.1)
        self.factor = factor

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * max(self.factor, 0.0) * gradient)


class Counted(optimizers.SGD):
    calls = 0

    def update_step(self, gradient, variable, learning_rate):
        self.calls = self.calls + 1
        super().update_step(gradient, variable, learning_rate)


class Floated(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * float(self.momentum), variable, learning_rate)


class Ending(optimizers.schedules.LearningRateSchedule):
    """A table of two values."""

    def __call__(self, step):
        return tf.gather(tf.constant([0.5, 0.25]), step)


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: OwnApply(0.1), "OwnApply does not follow Keras' recipe"),
            (lambda: NoStep(0.1), "NoStep does not follow Keras' recipe"),
            (
                lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
                "LossScaleOptimizer does not follow .* the optimizer within",
            ),
            (
                lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
                "`gradient_accumulation_steps` of SGD .* make the batches larger",
            ),
            (
                lambda: optimizers.SGD(0.1, loss_scale_factor=2.0),
                "`loss_scale_factor` of SGD",
            ),
            (
                lambda: optimizers.SGD(0.1, use_ema=True),
                "`use_ema` of SGD needs `ema_overwrite_frequency`",
            ),
            (lambda: Copying(0.1), "Copying starts from a function of the weights"),
            (lambda: Counting(0.1), "Counting keeps a state .* int32"),
            (lambda: Failing(0.1), "Failing cannot be used as dynamics"),
            (
                lambda: optimizers.SGD(far.Schedule([0.1, 0.2])),
                r"given to SGD by far\.KerasDynamics",
            ),
            (
                lambda: far.KerasDynamics(Threshold(), {"momentum": hyper(0.9, "m")}),
                r"Threshold cannot .*`momentum` with 0\.6, once for all .*ops\.where",
            ),
            (
                lambda: far.KerasDynamics(Derived(), {"momentum": hyper(0.9, "m")}),
                "Derived cannot .*`momentum` is read while the optimizer is built",
            ),
            (
                lambda: far.KerasDynamics(Copied(), {"momentum": hyper(0.9, "m")}),
                r"Copied copies numbers .*'same'",
            ),
            (
                lambda: far.KerasDynamics(Floated(), {"momentum": hyper(0.9, "m")}),
                "Floated cannot .*`momentum` is a tensor, of which Python",
            ),
            (lambda: Counted(0.1), r"`update_step` of Counted changes .*'calls'"),
        ],
    )
    def test_of_an_optimizer(self, make, message):
        with pytest.raises(ValueError, match=message):
            Small().bilevel(make())

    @pytest.mark.parametrize("kind", ["Failing", "Threshold"])
    def test_all_is_put_back_after_one(self, kind):
        root = tf.sqrt
        optimizer = {"Failing": Failing, "Threshold": Threshold}[kind](0.1, 0.75)
        dynamics = far.KerasDynamics(optimizer, {"momentum": hyper(0.9, "mass")})
        with pytest.raises(ValueError, match="cannot be used as dynamics"):
            Small().bilevel(dynamics)
        assert type(optimizer).__name__ == kind
        assert type(optimizer) in (Failing, Threshold)
        assert optimizer.momentum == 0.75
        assert not {"_numbers", "_indices"} & set(vars(optimizer))
        assert tf.sqrt is root is tf.math.sqrt

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"beta_3": 0.1}, "Adam has no number `beta_3`.* 'beta_2'"),
            ({"amsgrad": 0.1}, "Adam has no number `amsgrad`"),
            ([("beta_1", 0.1)], "`hyperparameters` of KerasDynamics must be a mapping"),
            ({"learning_rate": -1.0}, "`learning_rate` of Adam must be in"),
            ({"learning_rate": {"nothing": 0.1}}, "'nothing' matches no variable"),
            ({"beta_1": "0.9"}, "`beta_1` of Adam must be a number"),
            ({"beta_1": 1.5}, r"`beta_1` of Adam must be in \[0.0, 1.0\)"),
            ({"clipnorm": -1.0}, r"`clipnorm` of Adam must be in \(0.0, inf\)"),
            ({"clipnorm": 0.1, "clipvalue": 0.1}, "Adam clips gradients in one way"),
            ({"ema_momentum": 0.9}, "`ema_momentum` of Adam needs use_ema=True"),
            ({"weight_decay": far.Schedule([-0.1])}, "`weight_decay` of Adam must be"),
            (
                {"weight_decay": {"bias": None, ".*": 0.1}},
                "`weight_decay` of Adam must",
            ),
            ({"global_clipnorm": [0.1, 0.2]}, "must be a list of pairs"),
            ({"global_clipnorm": hyper([0.1, 0.2], "n")}, "must be a scalar"),
            (
                {"global_clipnorm": {"kernel": 0.1, ".*": 0.2}},
                "`global_clipnorm` of Adam must be one value",
            ),
        ],
    )
    def test_of_numbers(self, numbers, message):
        with pytest.raises(ValueError, match=message):
            Small().bilevel(far.KerasDynamics(optimizers.Adam(), numbers))

    def test_no_optimizer(self):
        with pytest.raises(ValueError, match=r"needs a `keras\.optimizers"):
            far.KerasDynamics("adam")
        with pytest.raises(ValueError, match="or a Keras optimizer"):
            Small().bilevel("adam")

    def test_one_optimizer_for_two_models(self):
        optimizer = optimizers.SGD(0.1)
        Small().bilevel(optimizer)
        with pytest.raises(ValueError, match="used for other variables"):
            Small().bilevel(optimizer)

    def test_integers_are_numbers(self):
        numbers = {"clip_threshold": hyper(1.0, "threshold")}
        optimizer = optimizers.Adafactor(0.1, clip_threshold=1)
        assert far.KerasDynamics(optimizer, numbers).numbers == numbers

    def test_the_learning_rate_of_the_optimizer_itself_ends(self):
        with pytest.raises(ValueError, match=r"of SGD ends before step 2.* Ending"):
            far.ReverseHG().compute(Small().bilevel(optimizers.SGD(Ending())), 3)

    def test_a_sign_that_python_asks_for(self):
        """As Keras does of limits for clipping, where negative ones are none."""
        problem = Small()
        for optimizer, name in (
            (Clamped(), "factor"),
            (optimizers.SGD(0.1), "clipnorm"),
            (optimizers.SGD(0.1), "global_clipnorm"),
        ):
            number = hyper(0.5, "number")
            dynamics = far.KerasDynamics(optimizer, {name: number})
            bilevel = problem.bilevel(dynamics, [number])
            far.ReverseHG().compute(bilevel, 2)
            number.assign(-0.5)
            with pytest.raises(ValueError, match=f"`{name}` of .* not be negative"):
                far.ReverseHG().compute(bilevel, 2)

    def test_a_state_that_is_not_a_first_one(self):
        problem = Small()
        optimizer = optimizers.SGD(0.1, momentum=0.9)
        problem.by_keras(optimizer, 2)
        optimizer.iterations.assign(0)
        with pytest.raises(ValueError, match="is not that of a first step"):
            problem.bilevel(optimizer)

    def test_built_without_momentum(self):
        problem = Small()
        optimizer = optimizers.SGD(0.1)
        optimizer.build(problem.model.trainable_variables)
        dynamics = far.KerasDynamics(optimizer, {"momentum": hyper(0.9, "mass")})
        with pytest.raises(ValueError, match=r"was built before.* Make a new one"):
            problem.bilevel(dynamics)

    def test_built_from_the_weights(self):
        problem = Small()
        optimizer = Copying(0.1)
        optimizer.build(problem.model.trainable_variables)
        with pytest.raises(ValueError, match="Copying starts from a function"):
            problem.bilevel(optimizer)

    def test_a_state_that_variables_share(self):
        numbers = {"beta_1": {"kernel": 0.9, ".*": 0.8}}
        with pytest.raises(ValueError, match="`beta_1` of Nadam must be one value"):
            Small().bilevel(far.KerasDynamics(optimizers.Nadam(), numbers))

    @pytest.mark.filterwarnings("default")
    def test_signs_are_warned_of(self):
        with pytest.warns(UserWarning, match="Lion moves weights by a sign"):
            Small().bilevel(optimizers.Lion())

    def test_divergence_names_the_slot(self):
        problem = Small()
        with pytest.raises(far.NonFiniteError, match="kernel_momentum"):
            mode = far.ReverseHG(jit_compile=False)
            mode.compute(problem.bilevel(optimizers.SGD(1e200, momentum=0.9)), 9)


def test_representation():
    dynamics = far.KerasDynamics(optimizers.Adam(), {"beta_1": 0.5})
    assert repr(dynamics) == "KerasDynamics(Adam, {'beta_1': 0.5})"
