"""Checks of what a `RealTimeModel` is given."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf.checks import require, warn_user
from far_ho_tf.data import Batches
from far_ho_tf.data.array_sources import Data
from far_ho_tf.hypergradients import DivergenceError, NonFiniteError
from far_ho_tf.real_time.objectives import LossWeights, check_batch
from far_ho_tf.tuning.callbacks import Refused
from far_ho_tf.tuning.outer_update import OuterUpdate
from far_ho_tf.variables.identity import find, path_of
from far_ho_tf.variables.owners import check_variables

# Those of Keras' callbacks that `fit` cannot serve; see `prepare_callbacks`.
_NO_OPTIMIZER = (
    "needs an `optimizer`, and a RealTimeModel has none. Remedy: the learning rate of "
    "the `dynamics` may be a Hyperparameter, which `hyper_optimizer` moves, or a "
    "far.Schedule."
)
REFUSED_CALLBACKS: Refused = {
    keras.callbacks.ReduceLROnPlateau: ("on_epoch_end", _NO_OPTIMIZER),
    keras.callbacks.LearningRateScheduler: ("on_epoch_begin", _NO_OPTIMIZER),
    keras.callbacks.BackupAndRestore: (
        "on_train_begin",
        "would go on elsewhere than it stopped: the slots and tangents of a "
        "RealTimeModel are not saved. Remedy: ModelCheckpoint with "
        "save_weights_only=True, and `load_weights`, which begins anew from there; or "
        "far.HyperOptimizer with mode='online' and far.Checkpoint.",
    ),
}


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
    require(
        model.trainable_variables,
        "`model` must have weights to train, but `trainable` is False of it, or of all "
        "its layers.",
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


def check_compiled(
    optimizer: Any,
    loss_weights: LossWeights,
    judged: list[keras.Variable],
    jit_compile: Any,
) -> None:
    """Refuses what a `RealTimeModel` cannot be compiled with.

    Args:
        optimizer, loss_weights, jit_compile: See `RealTimeModel.compile`.
        judged: List of the hyperparameters that the same loss judges.
    """
    require(
        optimizer is None,
        "`compile` takes no optimizer: the `dynamics` of the RealTimeModel "
        "train the weights, and its `hyper_optimizer` the hyperparameters.",
        optimizer=optimizer,
    )
    for weight in tf.nest.flatten(loss_weights):
        require(
            find(weight, judged) is None,
            "`loss_weights` holds a hyperparameter, and the outer objective, the "
            "same loss, would drive it to zero. Give RealTimeModel a `hyper_loss` "
            "without it.",
            loss_weights=loss_weights,
        )
    require(
        jit_compile in (True, False, "auto"),
        "`jit_compile` must be True, False or 'auto'.",
        jit_compile=jit_compile,
    )


def given_to_fit(*arguments: Any, **options: Any) -> Mapping[str, Any]:
    """What a call of `fit` gives, by name; nothing where Keras will refuse it."""
    try:
        return inspect.signature(keras.Model.fit).bind(*arguments, **options).arguments
    except TypeError:
        return {}


def not_finite(given: Mapping[str, Any]) -> list[str]:
    """Names of the arrays given to `fit` that hold NaN or infinity."""
    return [
        name
        for name in ("x", "y", "sample_weight")
        for leaf in tf.nest.flatten(given.get(name))
        if isinstance(leaf, (np.ndarray, tf.Tensor))
        and tf.as_dtype(leaf.dtype).is_floating
        and not np.all(np.isfinite(leaf))
    ]


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
    if not updates_of(outer_update):
        warn_user(
            "RealTimeModel has not tuned: training made fewer steps than "
            f"update_every={update_every}."
        )


def updates_of(outer_update: OuterUpdate | None) -> int:
    """How often the hyperparameters have been moved."""
    return int(outer_update.optimizers[0].iterations) if outer_update else 0


def divergence(
    step: int,
    value: float,
    limit: float | None,
    hyperparameters: list[keras.Variable],
    updates: int,
    bad: list[str],
) -> NonFiniteError:
    """What ended a `fit`: NaN or infinity, or an outer value beyond its limit.

    Args:
        step: How many steps were made.
        value: The outer value.
        limit: The highest that counts as good, or `None`.
        hyperparameters: List of the variables, as they are left.
        updates: How often they were moved since `fit` began.
        bad: Names of its arguments that are known not to be finite.
    """
    values = {path_of(v): v.numpy().tolist() for v in hyperparameters}
    exceeds = limit is not None and math.isfinite(value) and value > limit
    kind = DivergenceError if exceeds else NonFiniteError
    kept = "of the last good update"
    if not updates:
        kept = "of the beginning, as no update had been made"
    cause = f"`{bad[0]}` of `fit` holds NaN or infinity. " if bad else ""
    return kind(
        f"RealTimeModel stops: training diverged by step {step} (outer value "
        f"{value:g}, outer_limit={limit}). {cause}Weights and hyperparameters are "
        f"those {kept}: {values}"
    )
