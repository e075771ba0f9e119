"""The optimizer-dynamics layer: pure update rules of an inner step."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from far_ho_tf._types import ConcreteFunction, Structure, Variable
from far_ho_tf.checks import essence, require
from far_ho_tf.dynamics import arguments
from far_ho_tf.dynamics.arguments import Argument
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.variables.identity import dtype_of, path_of
from far_ho_tf.variables.numbers import is_function, is_number

# What `update` returns: the new variable, and the tuple of its new slots.
Moved: TypeAlias = tuple[tf.Tensor, tuple[tf.Tensor, ...]]


class Dynamics:
    """An update rule s' = U(s, g, λ).

    A subclass names its numeric arguments in its constructor, passes them to
    `Dynamics.__init__`, and implements `update` for one variable:

    >>> import far_ho_tf as far
    >>> class SignDescent(far.Dynamics):
    ...     def __init__(self, learning_rate):
    ...         super().__init__(learning_rate=learning_rate)
    ...
    ...     def update(self, variable, gradient, slots, step, learning_rate):
    ...         return variable - learning_rate * tf.sign(gradient), ()

    Each numeric argument takes a number, a `Hyperparameter`, a callable of
    the step (a `Schedule`, or such as Keras' `LearningRateSchedule`s; it gets an
    int32 scalar tensor or, where it cannot compute with integers, a float; it
    may read hyperparameters, but not the trained variables), or one of these
    per variable: a list of pairs `[(variable or layer, value), ...]`, or a
    mapping from path patterns `{"dense_1/.*": value}` (searched for in the
    variable's path as regular expressions; the first pattern that matches
    counts; only a last `".*"` may be left with none). A `Schedule` with
    `layers` gives each of them its own values.

    Args:
        **numbers: The numeric arguments, by name.

    Attributes:
        slot_names: Names of the optimizer slots of each variable; they have
            the variable's shape and dtype and start at zero.
        bounds: Mapping from the name of an argument to the `arguments.Bounds`
            that plain numbers for it must keep.
        choices: Mapping from names to `tf.TensorSpec`s: what `choose` decides.
        initial_slots: Mapping from names of slots to what they start from, where
            that is not zero; given as numeric arguments are.
    """

    slot_names: tuple[str, ...] = ()
    choices: Mapping[str, tf.TensorSpec] = {}
    initial_slots: Mapping[str, Argument] = {}
    bounds: Mapping[str, arguments.Bounds] = {"learning_rate": arguments.Bounds(0.0)}

    def __init__(self, **numbers: Argument) -> None:
        self.numbers = {}
        for name, value in numbers.items():
            self.add_number(name, value)

    def add_number(self, name: str, value: Argument) -> None:
        """Takes one more numeric argument, such as that of a subclass."""
        self.check(name, value)
        self.numbers[name] = value

    def update(
        self,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        **numbers: tf.Tensor,
    ) -> Moved:
        """Moves one variable.

        Args:
            variable: Floating tensor w.
            gradient: Tensor g of the same shape and dtype; of a row that was read
                several times (an embedding's) the sum.
            slots: Tuple of tensors of that shape, one per `slot_names`.
            step: Scalar int32 tensor, 0 for the first step.
            **numbers: The values of the numeric arguments at this step, as
                tensors in the variable's dtype; and what `choose` decided.

        Returns:
            The new variable and the tuple of new slots.
        """
        raise NotImplementedError(f"{type(self).__name__} must have an `update`.")

    def choose(
        self,
        loss: Callable[[list[tf.Tensor]], tf.Tensor],
        value: tf.Tensor,
        variables: list[tf.Tensor],
        gradients: list[tf.Tensor],
        numbers: list[dict[str, tf.Tensor]],
        constrain: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        """Decides on a step by the inner objective, as a line search does.

        Hypergradients take the decision for a constant.

        Args:
            loss: Callable(variables) -> the inner objective there, on the batch
                of the step.
            value: The inner objective at `variables`.
            variables, gradients: Lists of tensors.
            numbers: List of mappings, for each variable, from the names of the
                numeric arguments to their values.
            constrain: Callable(variables) -> variables: what their constraints
                make of them after the update.

        Returns:
            Mapping from the names in `choices` to tensors.
        """
        del loss, value, variables, gradients, numbers, constrain
        return {}

    def review(self, choices: Mapping[str, np.ndarray]) -> None:
        """Warns of what `choose` decided in a run, where the user must know.

        Args:
            choices: Mapping from the names in `choices` to arrays whose first axis
                goes over the steps.
        """
        del choices

    def bind(self, variables: list[Variable]) -> "BoundDynamics":
        """Fits the numeric arguments to the variables that will be moved.

        Args:
            variables: List of `keras.Variable`s or `tf.Variable`s.

        Returns:
            A `BoundDynamics`.

        Raises:
            ValueError: If an argument does not fit the variables.
        """
        return BoundDynamics(self, variables)

    def label(self, name: str) -> str:
        """An argument with its owner, as messages name it."""
        return f"`{name}` of {type(self).__name__}"

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v!r}" for k, v in self.numbers.items())
        return f"{type(self).__name__}({values})"

    def check(self, name: str, value: Argument) -> None:
        """Says so if plain numbers for an argument, or a table, are out of bounds."""
        bounds = self.bounds.get(name)
        known = value.constants() if isinstance(value, Schedule) else value
        require(
            bounds is None or not is_number(known) or bounds.hold(known),
            f"{self.label(name)} must be in {bounds}.",
            **{name: value},
        )


class BoundDynamics:
    """Dynamics with a source of values for each variable and argument.

    After each update the constraints of the variables are applied, as Keras
    does (`kernel_constraint` and the like).

    Args:
        dynamics: A `Dynamics`.
        variables: List of the variables that it moves.
    """

    def __init__(self, dynamics: Dynamics, variables: list[Variable]) -> None:
        self.dynamics = dynamics
        self._paths = [path_of(variable) for variable in variables]
        self._constraints = [variable.constraint for variable in variables]
        self._dtype = dtype_of(variables[0])
        self._checked = -1
        self._sources = {
            name: arguments.per_variable(dynamics.label(name), value, variables)
            for name, value in dynamics.numbers.items()
        }
        self._initial = {
            name: arguments.per_variable(
                dynamics.label(f"initial_{name}"), value, variables
            )
            for name, value in dynamics.initial_slots.items()
        }
        self.idle = set()
        for name, value in dynamics.numbers.items():
            if not isinstance(value, Schedule):  # That has been checked as a whole.
                for source in {id(s): s for s in self._sources[name]}.values():
                    dynamics.check(name, source)

    # Whether a row that is read twice in a step moves otherwise than by the sum of
    # both gradients, so that these are given as `autodiff.Slices`.
    reads_slices = False

    def leave(self, indices: Iterable[int]) -> None:
        """Leaves variables where they are, as Keras does without a gradient.

        Args:
            indices: List of the places of those that the inner objective does not
                read.
        """
        self.idle = set(indices)

    def check_last(self, step: int) -> None:
        """Says so if a schedule ends before a step: compiled code would not.

        XLA clamps an index that is out of range instead of raising.

        Args:
            step: Python integer.

        Raises:
            ValueError: If a schedule has no value for that step.
        """
        if step <= self._checked:
            return
        for label, source, traced in self._traced:
            # A GPU would not say so.
            with tf.device("CPU"):
                try:
                    traced(tf.constant(step))
                except tf.errors.InvalidArgumentError as error:
                    raise ValueError(
                        f"{label} ends before step {step}. Received: "
                        f"{arguments.describe(source)}, which fails there with "
                        f"{essence(error)}"
                    ) from error
        for label, schedule in self._schedules().values():
            length = getattr(schedule, "num_steps", None)
            require(
                length is None or step < length,
                f"{label} ends before step {step}.",
                schedule=schedule,
                length_of_schedule=length,
            )
        self._checked = step

    @functools.cached_property
    def _traced(self) -> list[tuple[str, arguments.Function, ConcreteFunction]]:
        """Callables of a user's own: the argument's label, itself, and traced."""
        return [
            (label, source, arguments.trace_schedule(label, source, self._dtype))
            for label, source in self._schedules().values()
            if not isinstance(source, Schedule)
        ]

    def _schedules(self) -> dict[tuple[str, int], tuple[str, arguments.Function]]:
        """Each schedule once: its argument's label, and itself."""
        return {
            (name, id(source)): (self.dynamics.label(name), source)
            for name, sources in self._sources.items()
            for source in sources
            if is_function(source)
        }

    def initial_slots(self, variables: list[tf.Tensor]) -> list[Structure]:
        """Slots before the first step: a list with a tuple per variable."""
        return [
            tuple(
                self._initial_slot(name, index, variable)
                for name in self.dynamics.slot_names
            )
            for index, variable in enumerate(variables)
        ]

    def _initial_slot(self, name: str, index: int, variable: tf.Tensor) -> tf.Tensor:
        if name not in self._initial:
            return tf.zeros_like(variable)
        label = self.dynamics.label(f"initial_{name}")
        value = arguments.value_at(
            label, self._initial[name][index], tf.constant(0), variable
        )
        return tf.broadcast_to(value, variable.shape)

    @property
    def choices(self) -> Mapping[str, tf.TensorSpec]:
        """See `Dynamics.choices`."""
        return self.dynamics.choices

    def review(self, choices: Mapping[str, tf.Tensor]) -> None:
        """See `Dynamics.review`; takes tensors."""
        self.dynamics.review({k: choice.numpy() for k, choice in choices.items()})

    def slot_paths(self) -> list[str]:
        """For each slot, in their order, the name by which messages know it."""
        return [path for path in self._paths for _ in self.dynamics.slot_names]

    def choose(
        self,
        loss: Callable[[list[tf.Tensor]], tf.Tensor],
        value: tf.Tensor,
        variables: list[tf.Tensor],
        gradients: list[Structure],
        step: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """See `Dynamics.choose`."""
        return self.dynamics.choose(
            loss,
            value,
            variables,
            gradients,
            self.numbers_at(step, variables),
            self._constrained,
        )

    def update(
        self,
        variables: list[tf.Tensor],
        gradients: list[Structure],
        slots: list[Structure],
        step: tf.Tensor,
        choice: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[Structure]]:
        """One update of all variables.

        Hyperparameters and schedules are read as they are when called, so a
        caller substitutes their values around it.

        Args:
            variables, gradients: Lists of tensors.
            slots: List with a tuple of tensors per variable.
            step: Scalar int32 tensor.
            choice: What `choose` returned.

        Returns:
            New variables and new slots, structured as the old.

        Raises:
            ValueError: If the dynamics return something else.
        """
        moved = [
            (variable, slot)
            if index in self.idle
            else self._update_one(index, variable, gradient, slot, step, choice)
            for index, (variable, gradient, slot) in enumerate(
                zip(variables, gradients, slots, strict=True)
            )
        ]
        new_variables = self._constrained([variable for variable, _ in moved])
        return new_variables, [slot for _, slot in moved]

    def numbers_at(
        self, step: tf.Tensor, variables: list[tf.Tensor]
    ) -> list[dict[str, tf.Tensor]]:
        """For each variable the values of the numeric arguments at a step."""
        return [
            self._numbers_at(index, step, variable)
            for index, variable in enumerate(variables)
        ]

    def _numbers_at(
        self, index: int, step: tf.Tensor, variable: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The values of the numeric arguments for a variable at a step."""
        return {
            name: arguments.value_at(
                self.dynamics.label(name), sources[index], step, variable
            )
            for name, sources in self._sources.items()
        }

    def _constrained(self, variables: list[tf.Tensor]) -> list[tf.Tensor]:
        return [
            variable
            if constraint is None or index in self.idle
            else constraint(variable)
            for index, (constraint, variable) in enumerate(
                zip(self._constraints, variables, strict=True)
            )
        ]

    def _update_one(
        self,
        index: int,
        variable: tf.Tensor,
        gradient: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        choice: dict[str, tf.Tensor],
    ) -> Moved:
        numbers = self._numbers_at(index, step, variable) | choice
        moved = self.dynamics.update(variable, gradient, slots, step, **numbers)
        try:
            (new_variable, new_slots) = moved
            new_slots = tuple(new_slots)
            shapes = [tensor.shape for tensor in (new_variable, *new_slots)]
        except (TypeError, ValueError, AttributeError):
            shapes = None
        require(
            shapes == [variable.shape] * (1 + len(slots)),
            f"`update` of {type(self.dynamics).__name__} must return the new variable "
            f"and a tuple of {len(slots)} slots, each of shape {variable.shape}.",
            result=moved,
        )
        return new_variable, new_slots
