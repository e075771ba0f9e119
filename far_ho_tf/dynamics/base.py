"""The optimizer-dynamics layer: pure update rules of an inner step."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.checks import require, warn_user
from far_ho_tf.dynamics import arguments
from far_ho_tf.dynamics.arguments import Argument
from far_ho_tf.dynamics.bound import BoundDynamics, Moved
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.variables.identity import is_variable, path_of, read
from far_ho_tf.variables.numbers import is_number


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

    def check_start(self, name: str, value: Argument) -> None:
        """Warns of a hyperparameter that begins out of bounds: it moves."""
        bounds = self.bounds.get(name)
        if bounds is None or not is_variable(value):
            return
        numbers = read([value])[0].numpy()
        if not bounds.hold(numbers):
            warn_user(
                f"{self.label(name)} should be in {bounds}, and begins outside. "
                "Remedy: another value, and a constraint such as 'non_neg' or "
                "far.constraints.Interval, which keeps it there. Received: "
                f"`{path_of(value)}`={numbers.tolist()}"
            )
