"""Checks of what a `RealTimeModel` is given."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from far_ho_tf.checks import require, warn_user
from far_ho_tf.data import Batches
from far_ho_tf.data.array_sources import Data
from far_ho_tf.hypergradients import DivergenceError, NonFiniteError
from far_ho_tf.real_time.objectives import check_batch
from far_ho_tf.tuning.outer_update import OuterUpdate
from far_ho_tf.variables.identity import path_of
from far_ho_tf.variables.owners import check_variables


def checked(
    model: keras.Model, hyperparameters: Sequence[keras.Variable], hyper_data: Data
) -> list[keras.Variable]:
    """The list of hyperparameters; all are such as `RealTimeModel` takes."""
    require(
        isinstance(model, keras.Model) and model.built,
        "`model` must be a built keras.Model (give it an `Input`, or call it on "
        "data first).",
        model=model,
    )
    for method in ("train_step", "compute_loss"):
        require(
            getattr(type(model), method) is getattr(keras.Model, method),
            f"`model` must not have a `{method}` of its own: RealTimeModel trains "
            "by the loss given to `compile`.",
            model=model,
        )
    if not isinstance(hyperparameters, (list, tuple)) or hyperparameters:
        hyperparameters = check_variables("hyperparameters", hyperparameters)
    for variable in hyperparameters:
        require(
            isinstance(variable, keras.Variable),
            "`hyperparameters` must be Hyperparameters (or other Keras variables), "
            "which are saved with the model.",
            hyperparameter=variable,
        )
    require(
        not hyperparameters or hyper_data is not None,
        "`hyper_data` must be the data that hyperparameters are judged on, such "
        "as (x_hyper, y_hyper): neither the training data nor the data of "
        "the final test. `validation_data` of `fit` is not used for it.",
        hyper_data=hyper_data,
    )
    if hyper_data is not None and not makes_batches(hyper_data):
        check_batch(hyper_data)
    return list(hyperparameters)


def makes_batches(data: Data) -> bool:
    """Whether they are no single batch."""
    return isinstance(data, (Batches, tf.data.Dataset)) or callable(data)


def refuse_strategy() -> None:
    """Raises within the scope of a strategy."""
    require(
        not tf.distribute.has_strategy(),
        "RealTimeModel trains on one device. On several: "
        'far.HyperOptimizer(..., far.ForwardHG(), strategy=...) with mode="online".',
        strategy=tf.distribute.get_strategy(),
    )


def warn_of_reading(names: list[str]) -> None:
    """Warns where the loss on `hyper_data` reads hyperparameters directly.

    Args:
        names: List of theirs.
    """
    if names:
        warn_user(
            f"The loss on `hyper_data` reads {names} directly. A hyperparameter that "
            "weighs the loss would go to zero: if it does, give RealTimeModel a "
            "`hyper_loss` without it."
        )


def warn_of_no_update(outer_update: OuterUpdate, update_every: int) -> None:
    """Warns where the hyperparameters have never been moved."""
    if not int(outer_update.optimizers[0].iterations):
        warn_user(
            "RealTimeModel has not tuned: training made fewer steps than "
            f"update_every={update_every}."
        )


def divergence(
    step: int, value: float, limit: float | None, hyperparameters: list[keras.Variable]
) -> NonFiniteError:
    """What ended a `fit`: NaN or infinity, or an outer value beyond its limit."""
    values = {path_of(v): v.numpy().tolist() for v in hyperparameters}
    exceeds = limit is not None and math.isfinite(value) and value > limit
    kind = DivergenceError if exceeds else NonFiniteError
    return kind(
        f"RealTimeModel stops: training diverged by step {step} (outer value "
        f"{value:g}, outer_limit={limit}). Weights and hyperparameters are those of "
        f"the last good update: {values}"
    )
