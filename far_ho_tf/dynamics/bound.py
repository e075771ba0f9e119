"""Dynamics bound to the variables of a problem."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from far_ho_tf._types import ConcreteFunction, Structure, Variable
from far_ho_tf.checks import essence, require
from far_ho_tf.dynamics import arguments
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.variables.identity import dtype_of, path_of
from far_ho_tf.variables.numbers import is_function

# What `update` returns: the new variable, and the tuple of its new slots.
Moved: TypeAlias = tuple[tf.Tensor, tuple[tf.Tensor, ...]]


class Rule(Protocol):
    """A `Dynamics`."""

    numbers: dict[str, Any]

    @property
    def initial_slots(self) -> Mapping[str, Any]: ...

    @property
    def slot_names(self) -> Sequence[str]: ...

    @property
    def choices(self) -> Mapping[str, tf.TensorSpec]: ...

    def label(self, name: str) -> str: ...

    def update(
        self,
        variable: tf.Tensor,
        gradient: Any,
        slots: tuple[tf.Tensor, ...],
        step: tf.Tensor,
        **numbers: tf.Tensor,
    ) -> Moved: ...

    def choose(
        self,
        loss: Callable[[list[tf.Tensor]], tf.Tensor],
        value: tf.Tensor,
        variables: list[tf.Tensor],
        gradients: list[Any],
        numbers: list[dict[str, tf.Tensor]],
        constrain: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    ) -> dict[str, tf.Tensor]: ...

    def check(self, name: str, value: Any) -> None: ...

    def check_start(self, name: str, value: Any) -> None: ...

    def review(self, choices: Mapping[str, np.ndarray]) -> None: ...


class BoundDynamics:
    """Dynamics with a source of values for each variable and argument.

    After each update the constraints of the variables are applied, as Keras
    does (`kernel_constraint` and the like).

    Args:
        dynamics: A `Dynamics`.
        variables: List of the variables that it moves.
    """

    # Whether `check_values` is to be called.
    checks_values = False

    def __init__(self, dynamics: Rule, variables: list[Variable]) -> None:
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
                    dynamics.check_start(name, source)

    # Whether a row that is read twice in a step moves otherwise than by the sum of
    # both gradients, so that these are given as `Slices`.
    reads_slices = False

    def leave(self, indices: Iterable[int]) -> None:
        """Leaves variables where they are, as Keras does without a gradient.

        Args:
            indices: List of the places of those that the inner objective does not
                read.
        """
        self.idle = set(indices)

    def check_values(self) -> None:
        """Refuses values of hyperparameters that a run cannot take, before each."""

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
