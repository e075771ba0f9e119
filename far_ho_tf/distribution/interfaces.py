"""What is needed here of problems and runs, which are made in folders below."""

import functools
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.data.source import Source
from far_ho_tf.variables.state import State

Self = TypeVar("Self")


class OracleValue(Protocol):
    """An `OracleValue` of a problem."""

    @property
    def value(self) -> tf.Tensor: ...

    @property
    def extra(self) -> list[tf.Tensor]: ...


class Problem(Protocol):
    """A `PureProblem`."""

    dtype: tf.DType
    variables: list[Variable]
    hyperparameters: list[Variable]
    inner_data: Source
    outer_data: Source

    @functools.cached_property
    def extra_variables(self) -> list[Variable]: ...

    @functools.cached_property
    def start(self) -> State: ...

    def oracle(
        self, state: State, hyperparameters: list[tf.Tensor], batch: Structure
    ) -> OracleValue: ...

    def outer_value(
        self, state: State, hyperparameters: list[tf.Tensor], batch: Structure
    ) -> tf.Tensor: ...

    def sources(
        self, state: State, hyperparameters: list[tf.Tensor]
    ) -> list[list[Any]]: ...


class Inputs(Protocol):
    """The `Inputs` of a compiled program."""

    @property
    def start(self) -> State: ...

    @property
    def hyperparameters(self) -> list[tf.Tensor]: ...

    @property
    def inner(self) -> Structure: ...

    @property
    def outer(self) -> Structure: ...

    @property
    def first_step(self) -> tf.Tensor: ...

    @property
    def outer_step(self) -> tf.Tensor: ...

    def _replace(self: Self, **changes: Any) -> Self: ...
