"""The update of hyperparameters by Keras optimizers."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import OuterOptimizer, Variable
from far_ho_tf.checks import require, shown
from far_ho_tf.distribution.strategies import strategy_of
from far_ho_tf.variables.identity import find, is_variable, path_of

# Strategies whose variables are not ordinary ones.
_MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


class OuterUpdate:
    """One Keras optimizer for all hyperparameters, or one for each group.

    Args:
        optimizer: A `keras.optimizers.Optimizer` or its name, or a list of
            pairs (hyperparameter or list of them, optimizer) that names each
            hyperparameter once; `None` is `keras.optimizers.Adam(0.01)`.
        hyperparameters: List of variables.

    Attributes:
        optimizers: List of Keras optimizers, built.

    Raises:
        ValueError: If a pair is malformed, or the groups miss or repeat a
            hyperparameter.
    """

    def __init__(
        self, optimizer: OuterOptimizer, hyperparameters: Sequence[Variable]
    ) -> None:
        if optimizer is None:
            optimizer = keras.optimizers.Adam(0.01)
        if isinstance(optimizer, (list, tuple)):
            groups = [_group(pair) for pair in optimizer]
        else:
            groups = [(hyperparameters, _keras_optimizer(optimizer))]
        named = [variable for variables, _ in groups for variable in variables]
        _check_cover(named, hyperparameters)
        self.optimizers = [one for _, one in groups]
        require(
            len({id(one) for one in self.optimizers}) == len(groups),
            "Each group of hyperparameters needs an optimizer object of its own.",
            optimizer=optimizer,
        )
        # Which gradients go to which optimizer.
        self._groups: list[list[int]] = [  # pyright: ignore[reportAttributeAccessIssue]
            [find(variable, hyperparameters) for variable in variables]
            for variables, _ in groups
        ]
        self._hyperparameters = hyperparameters
        for variables, one in groups:
            _check_scope(one, variables)
            if not one.built:
                _build(one, variables)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Moves the hyperparameters, and applies their constraints.

        Args:
            gradients: List of tensors aligned with the hyperparameters.
        """
        for indices, optimizer in zip(self._groups, self.optimizers, strict=True):
            optimizer.apply(
                [gradients[index] for index in indices],
                [self._hyperparameters[index] for index in indices],
            )


def _build(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Variable]
) -> None:
    with _scope_of(optimizer):
        optimizer.build(variables)


def _check_scope(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Variable]
) -> None:
    """Refuses an optimizer that was made in another `strategy.scope()`, or in none.

    It would fail at its first update, after the inner run.
    """
    made_in = getattr(optimizer, "_distribution_strategy", None)
    mirrored = isinstance(made_in, _MIRRORED)
    for variable in variables:
        require(
            strategy_of(variable) is (made_in if mirrored else None),
            "The outer `optimizer` and the hyperparameters must both be made in one "
            "`strategy.scope()`, or both outside.",
            optimizer=optimizer.name,
            hyperparameters=[path_of(variable) for variable in variables],
        )


def _scope_of(optimizer: keras.optimizers.Optimizer) -> AbstractContextManager[Any]:
    """The scope of a `OneDeviceStrategy` that an optimizer was made in.

    There variables are ordinary ones: only the optimizer knows of it.
    """
    strategy = getattr(optimizer, "_distribution_strategy", None)
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return strategy.scope()  # pyright: ignore[reportOptionalMemberAccess]
    return contextlib.nullcontext()


def _group(pair: Any) -> tuple[Sequence[Variable], keras.optimizers.Optimizer]:
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
        raise ValueError(
            "`optimizer` must be a Keras optimizer, or a list of pairs "
            f"(hyperparameters, Keras optimizer). Received the element: {shown(pair)}"
        )
    variables, optimizer = pair
    if is_variable(variables):
        variables = [variables]
    require(
        isinstance(variables, (list, tuple))
        and variables
        and all(map(is_variable, variables)),
        "Each pair of `optimizer` must begin with a hyperparameter or a list of them.",
        pair=pair,
    )
    return list(variables), _keras_optimizer(optimizer)


def _keras_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    try:
        return keras.optimizers.get(optimizer)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "The outer `optimizer` must be a Keras optimizer or its name, or a list of "
            f"pairs (hyperparameters, Keras optimizer). Received: {shown(optimizer)}"
        ) from error


def _check_cover(
    named: Sequence[Variable], hyperparameters: Sequence[Variable]
) -> None:
    for variable in named:
        require(
            find(variable, hyperparameters) is not None,
            f"`optimizer` names `{path_of(variable)}`, which is not a hyperparameter.",
            hyperparameters=[path_of(other) for other in hyperparameters],
        )
    for variable in hyperparameters:
        count = sum(other is variable for other in named)
        require(
            count == 1,
            "`optimizer` must name each hyperparameter in one pair: "
            f"`{path_of(variable)}` is in {count}.",
            optimizer=[path_of(other) for other in named],
        )
