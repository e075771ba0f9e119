"""Closures over variables, read as functions of the variables' values.

Objectives are written as plain closures over a Keras model. Within
`substituted`, the variables that they read are replaced by tensors.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.variables.identity import find


class SubstitutionScope(keras.StatelessScope):
    """A `keras.StatelessScope` that remembers which variables were assigned.

    So BatchNorm statistics, Dropout seeds and any other state that an
    objective changes are found, whether or not the model owns them. What a scope
    within another does not substitute, it takes from there.
    """

    def __init__(
        self, state_mapping: Sequence[tuple[keras.Variable, tf.Tensor]]
    ) -> None:
        # Without `collect_losses` activity regularizers would be dropped.
        super().__init__(state_mapping, collect_losses=True)
        self.assigned: list[keras.Variable] = []
        # As in training, a gradient does not flow through an assignment: the tape that
        # takes it watches instead whether what is assigned is read again. Outer tapes
        # do see it.
        self.tape: tf.GradientTape | None = None
        self.watched: list[tf.Tensor] = []
        self.reads_again = False

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        if find(variable, self.assigned) is None:
            self.assigned.append(variable)
        if self.tape is None:
            value = tf.identity(value)
        else:
            with self.tape.stop_recording():
                value = tf.identity(value)
            if value.dtype.is_floating:
                self.tape.watch(value)
                self.watched.append(value)
        super().add_update((variable, value))

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor:
        value = super().get_current_value(variable)
        if value is not None:
            return value
        if isinstance(self.original_scope, SubstitutionScope):
            return self.original_scope.get_current_value(variable)
        # Keras' weight regularizers ask the scope for the value of every
        # trainable weight and take no `None` for "not substituted".
        return variable._value

    def values_of(self, variables: Iterable[Variable]) -> list[tf.Tensor]:
        """Values of Keras variables and tf.Variables as the scope ends."""
        return [
            tf.convert_to_tensor(
                self.get_current_value(variable)
                if isinstance(variable, keras.Variable)
                else variable
            )
            for variable in variables
        ]


@contextlib.contextmanager
def substituted(
    variables: Sequence[Variable], values: Sequence[tf.Tensor]
) -> Iterator[SubstitutionScope]:
    """Within the scope, reads of `variables` return `values`.

    A `tf.function` called within it runs as a part of the graph that is being
    traced: a trace of its own would keep the values of its first call.

    Keras variables are replaced through the scope and stay untouched. A bare
    `tf.Variable` cannot be replaced, so it is assigned; whoever opens the
    scope puts its value back in the end.

    Yields:
        The `SubstitutionScope`.
    """
    mapping = []
    for variable, value in zip(variables, values, strict=True):
        if isinstance(variable, keras.Variable):
            mapping.append((variable, value))
        else:
            variable.assign(value)
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with SubstitutionScope(mapping) as scope:
            yield scope
    finally:
        tf.config.run_functions_eagerly(eagerly)


def tape_sources(
    variables: Sequence[Variable], values: Sequence[tf.Tensor]
) -> list[tf.Tensor | tf.Variable]:
    """What a tape must watch: the substitute, or the tf.Variable itself."""
    return [
        value if isinstance(variable, keras.Variable) else variable
        for variable, value in zip(variables, values, strict=True)
    ]
