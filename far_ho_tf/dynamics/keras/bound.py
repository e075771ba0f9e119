"""A Keras optimizer bound to the variables of a problem."""

from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import Gradient, Structure, Variable
from far_ho_tf.checks import require, warn_user
from far_ho_tf.dynamics.arguments import Function
from far_ho_tf.dynamics.bound import BoundDynamics, Rule
from far_ho_tf.dynamics.keras.checks import BY_VARIABLE, CLIPPING, SUMS_GRADIENTS
from far_ho_tf.dynamics.keras.functional import (
    Number,
    functional,
    shares_state,
    stand_in,
    underlying,
)
from far_ho_tf.variables.derivatives import Slices
from far_ho_tf.variables.identity import dtype_of, find, is_variable, read
from far_ho_tf.variables.numbers import is_function
from far_ho_tf.variables.substitution import SubstitutionScope


class OptimizerRule(Rule, Protocol):
    """A `KerasDynamics`."""

    optimizer: keras.optimizers.Optimizer


class BoundOptimizer(BoundDynamics):
    """A Keras optimizer for the variables of a problem.

    Its slots are those of the optimizer's variables that an update assigns, found
    by tracing one: a list of tensors, of any shapes.
    """

    def __init__(self, dynamics: OptimizerRule, variables: list[Variable]) -> None:
        super().__init__(dynamics, variables)
        self._optimizer = dynamics.optimizer
        # Only Keras' variables can be substituted.
        self._variables = [
            variable if isinstance(variable, keras.Variable) else stand_in(variable)
            for variable in variables
        ]
        self._check_shared()
        self._compared = set()
        self._built_before = self._optimizer.built
        self._build()
        self._slots = self._find_slots()
        self._initial_slots = read(self._slots)

    @property
    def reads_slices(self) -> bool:
        """Of what is linear in the gradient, the sum is all the same."""
        clips = any(
            name in self._sources or getattr(self._optimizer, name) for name in CLIPPING
        )
        return clips or type(self._optimizer) not in SUMS_GRADIENTS

    def slot_paths(self) -> list[str]:
        return [slot.path for slot in self._slots]

    def initial_slots(self, variables: list[tf.Tensor]) -> list[Structure]:
        del variables
        return list(self._initial_slots)

    def update(
        self,
        variables: list[tf.Tensor],
        gradients: list[Structure],
        slots: list[Structure],
        step: tf.Tensor,
        choice: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[Structure]]:
        del choice
        mapping = list(zip(self._slots, slots, strict=True))
        gradients = [
            None if index in self.idle else _as_keras(gradient, variables[index])
            for index, gradient in enumerate(gradients)
        ]
        scope = self._run(variables, gradients, mapping, step)
        moved = scope.values_of(self._variables)
        return self._constrained(moved), scope.values_of(self._slots)

    def _run(
        self,
        variables: list[tf.Tensor],
        gradients: list[Gradient | None],
        slots: list[tuple[keras.Variable, tf.Tensor]],
        step: tf.Tensor,
    ) -> SubstitutionScope:
        """The optimizer's update, in the scope that holds what it assigned."""
        iterations = self._optimizer.iterations
        numbers = self._numbers(step, variables)
        mapping = [
            *zip(self._variables, variables, strict=True),
            *slots,
            (iterations, tf.cast(step, iterations.dtype)),  # pyright: ignore[reportOptionalMemberAccess]
        ]
        with (
            SubstitutionScope(mapping) as scope,
            functional(self._optimizer, *numbers),
        ):
            self._optimizer._backend_apply_gradients(gradients, self._variables)
        return scope

    def _numbers(
        self, step: tf.Tensor, variables: list[tf.Tensor]
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Names and values of the numbers, as `functional` takes them."""
        rates = self._sources.get("learning_rate")
        own = {} if rates else self._own_rate(step)
        by_variable = []
        for index, variable in enumerate(variables):
            values = self._numbers_at(index, step, variable)
            numbers: dict[str, Any] = {
                name: Number(name, value, self._compared)
                for name, value in values.items()
            }
            numbers |= own
            if rates:  # Adafactor asks whether it is a schedule.
                rate = rates[index]
                numbers["_learning_rate"] = (
                    rate if is_function(rate) else numbers["learning_rate"].tensor
                )
            by_variable.append(numbers)
        return list(by_variable[0]), by_variable

    def _own_rate(self, step: tf.Tensor) -> dict[str, Number]:
        """What the optimizer's own schedule gives, if it has one."""
        optimizer = self._optimizer
        if not callable(optimizer._learning_rate):
            return {}
        iterations = optimizer.iterations
        with SubstitutionScope([(iterations, tf.cast(step, iterations.dtype))]):  # pyright: ignore[reportOptionalMemberAccess]
            rate = optimizer._get_current_learning_rate()
        return {"learning_rate": Number("learning_rate", tf.convert_to_tensor(rate))}

    @property
    def checks_values(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return bool(self._compared & set(self._sources))

    def check_values(self) -> None:
        """Refuses negative ones of what the optimizer takes for positive."""
        for name in self._compared & set(self._sources):
            for source in self._sources[name]:
                require(
                    not is_variable(source) or bool(tf.reduce_all(source >= 0.0)),
                    f"{self.dynamics.label(name)} must not be negative: the optimizer "
                    "compares it with zero, and that decides once for all values.",
                    **{name: source},
                )

    def _schedules(self) -> dict[tuple[str, int], tuple[str, Function]]:
        """Those of the arguments, and the optimizer's own learning rate."""
        found = super()._schedules()
        own = self._optimizer._learning_rate
        if "learning_rate" not in self._sources and isinstance(
            own, keras.optimizers.schedules.LearningRateSchedule
        ):
            dtype = self._optimizer.iterations.dtype  # pyright: ignore[reportOptionalMemberAccess]

            def schedule(step: tf.Tensor) -> tf.Tensor:
                return own(tf.cast(step, dtype))

            schedule.__name__ = type(own).__name__
            label = self.dynamics.label("learning_rate")
            found["learning_rate", id(own)] = (label, schedule)
        return found

    def _check_shared(self) -> None:
        """Refuses numbers by variable for what is one for all of them."""
        for name, sources in self._sources.items():
            shared = name == "global_clipnorm" or (
                shares_state(self._optimizer) and name not in BY_VARIABLE
            )
            require(
                not shared or all(s is sources[0] for s in sources),
                f"{self.dynamics.label(name)} must be one value for all variables: "
                "this optimizer does something with them together.",
                **{name: self.dynamics.numbers[name]},
            )

    def _build(self) -> None:
        optimizer = self._optimizer
        if optimizer.built:
            self._check_built()
            try:
                optimizer = type(optimizer).from_config(optimizer.get_config())
            except Exception as error:  # It is a user's own.
                raise ValueError(
                    f"{type(optimizer).__name__} is built already, and cannot be made "
                    "again to see what it starts from. Make a new one, not built, or "
                    f"give it a `get_config`. Received: {error}"
                ) from error
        name = type(optimizer).__name__
        numbers = {name: Number(name, None) for name in self._sources}
        try:
            with (
                tf.GradientTape() as tape,
                functional(optimizer, list(numbers), [numbers]),
            ):
                optimizer._use_numbers(0)
                optimizer.build(self._variables)
        except TypeError as error:
            raise ValueError(f"{name} cannot be used as dynamics: {error}.") from error
        read_by_it = {variable.ref() for variable in tape.watched_variables()}
        require(
            not any(v.value.ref() in read_by_it for v in self._variables),
            f"{name} starts from a function of the weights, which would not be "
            "differentiated. Alternative: another optimizer, or a "
            "`far_ho_tf.Dynamics` of your own.",
            optimizer=optimizer,
        )
        copies = [k for k, v in vars(optimizer).items() if isinstance(v, Number)]
        require(
            not copies,
            f"{name} copies numbers that are hyperparameters while it is built, and "
            "the copies would not be differentiated. Remedy: read them in "
            "`update_step`.",
            copies=copies,
        )
        if self._built_before:
            self._check_clean(optimizer)

    def _check_clean(self, fresh: keras.optimizers.Optimizer) -> None:
        """Refuses an optimizer whose state is not that of a fresh one."""
        rate = self._optimizer._learning_rate
        require(
            len(self._optimizer.variables) == len(fresh.variables),
            f"The optimizer {self._optimizer.name} was built before, with numbers of "
            "its own, and lacks a state that those in their place need. Make a new "
            "one, not built.",
            optimizer=self._optimizer,
        )
        for own, other in zip(self._optimizer.variables, fresh.variables, strict=True):
            require(
                own is rate or np.array_equal(own.numpy(), other.numpy()),
                f"The state of the optimizer {self._optimizer.name} is not that of a "
                "first step. Make a new one.",
                variable=own.path,
            )

    def _check_built(self) -> None:
        """Refuses an optimizer that has been used otherwise."""
        optimizer = self._optimizer
        try:
            for variable in self._variables:
                optimizer._get_variable_index(underlying(variable))
        except KeyError as error:
            raise ValueError(
                f"The optimizer {optimizer.name} has been used for other variables "
                "than those of this problem. Make one for each problem."
            ) from error
        require(
            int(optimizer.iterations) == 0,
            f"The optimizer {optimizer.name} has made {int(optimizer.iterations)} "
            "steps already, and its state is not that of a first step. Make a new one.",
            optimizer=optimizer,
        )

    def _find_slots(self) -> list[keras.Variable]:
        assigned = []

        def trace(variables: list[tf.Tensor], gradients: list[Gradient | None]) -> None:
            scope = self._run(variables, gradients, [], tf.constant(0))
            assigned.extend(scope.assigned)

        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self._variables]
        name = type(self._optimizer).__name__
        before = _plain_attributes(self._optimizer)
        try:
            traced = tf.function(trace, autograph=False)
            graph = traced.get_concrete_function(specs, specs).graph
        except Exception as error:  # Whatever an optimizer of one's own raises.
            raise ValueError(
                f"{name} cannot be used as dynamics: its update fails with {error}"
            ) from error
        after = _plain_attributes(self._optimizer)
        require(
            after == before,
            f"`update_step` of {name} changes attributes that are Python's, which "
            "happens when it is traced, not in each step. Remedy: `add_variable`, or "
            "`self.iterations`.",
            attributes=sorted(k for k in after if after[k] != before.get(k)),
        )
        slots = [v for v in assigned if find(v, self._variables) is None]
        for slot in slots:
            require(
                dtype_of(slot).is_floating,
                f"{name} keeps a state that is not floating, which cannot be "
                "differentiated.",
                variable=f"{slot.path} of {slot.dtype}",
            )
        if any(op.type == "Sign" for op in graph.get_operations()):
            warn_user(
                f"{name} moves weights by a sign, whose derivative is zero: so is each "
                "hypergradient in what reaches the weights through it only, such as "
                "the penalties of the inner objective, or beta_1 of Lion."
            )
        return slots


def _as_keras(gradient: tf.Tensor | Slices, variable: tf.Tensor) -> Gradient:
    """A gradient as Keras' tapes give it."""
    if not isinstance(gradient, Slices):
        return gradient
    return tf.IndexedSlices(*gradient, tf.constant(variable.shape.as_list()))  # pyright: ignore[reportArgumentType]


def _plain_attributes(
    optimizer: keras.optimizers.Optimizer,
) -> dict[str, int | float | str]:
    return {
        k: v for k, v in vars(optimizer).items() if isinstance(v, (int, float, str))
    }
