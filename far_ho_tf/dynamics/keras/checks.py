"""What a Keras optimizer must be to serve as dynamics, and which numbers it has."""

from collections.abc import Mapping

import keras

from far_ho_tf.checks import require
from far_ho_tf.dynamics.arguments import Argument
from far_ho_tf.hyperparameters.schedules import Schedule

# Numbers that Keras' optimizers have, `None` where they are not used.
CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")
_OPTIONAL = ("weight_decay", *CLIPPING)
# Numbers that nothing but the loops over variables reads.
BY_VARIABLE = ("learning_rate", "weight_decay", "clipnorm", "clipvalue", "ema_momentum")
# Optimizers that move a row by the sum of its gradients, as often as it was read.
SUMS_GRADIENTS = (keras.optimizers.SGD, keras.optimizers.Lion)
# Integers that they have, which count something.
_COUNTS = ("ema_overwrite_frequency", "gradient_accumulation_steps")


def numbers_of(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Names of the numbers of an optimizer that can be hyperparameters."""
    own = [
        name
        for name, value in vars(optimizer).items()
        if isinstance(value, (float, int))
        and not isinstance(value, bool)
        # What a slot starts from is no part of an update.
        and not name.startswith(("_", "initial_"))
        and name not in _COUNTS
    ]
    return ["learning_rate", *_OPTIONAL, *(n for n in own if n not in _OPTIONAL)]


def check_used(
    optimizer: keras.optimizers.Optimizer, hyperparameters: Mapping[str, Argument]
) -> None:
    """Refuses numbers that the optimizer would not look at."""
    name = type(optimizer).__name__
    clipping = [
        kind
        for kind in CLIPPING
        if kind in hyperparameters or getattr(optimizer, kind) is not None
    ]
    require(
        len(clipping) < 2,
        f"{name} clips gradients in one way only.",
        clipping=clipping,
    )
    require(
        optimizer.use_ema or "ema_momentum" not in hyperparameters,
        f"`ema_momentum` of {name} needs use_ema=True.",
        use_ema=optimizer.use_ema,
    )


def check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses what would be ignored, and names what does it instead."""
    require(
        isinstance(optimizer, keras.optimizers.Optimizer),
        "KerasDynamics needs a `keras.optimizers.Optimizer`.",
        optimizer=optimizer,
    )
    name, own = type(optimizer).__name__, type(optimizer)
    for method, overridden in (("apply", True), ("update_step", False)):
        same = getattr(own, method) is getattr(keras.optimizers.Optimizer, method)
        require(
            same is overridden,
            f"{name} does not follow Keras' recipe for optimizers, an `update_step` "
            "that `apply` calls for each variable. Alternatives: the optimizer within "
            "it (no loss is scaled here), or numbers by variable or path pattern in "
            "the place of several optimizers.",
            optimizer=optimizer,
        )
    for argument, remedy in (
        ("gradient_accumulation_steps", "make the batches larger by that factor"),
        ("loss_scale_factor", "leave it out: nothing underflows in float32"),
    ):
        require(
            getattr(optimizer, argument) is None,
            f"`{argument}` of {name} is not supported: {remedy}.",
            **{argument: getattr(optimizer, argument)},
        )
    require(
        not isinstance(optimizer._learning_rate, Schedule),
        f"A Schedule must be given to {name} by far.KerasDynamics(optimizer, "
        '{"learning_rate": schedule}): Keras knows no such learning rate.',
        learning_rate=optimizer._learning_rate,
    )
    require(
        not optimizer.use_ema or optimizer.ema_overwrite_frequency,
        f"`use_ema` of {name} needs `ema_overwrite_frequency`: the outer objective is "
        "evaluated at the weights, which Keras replaces by their average at the end "
        "of `fit`. ema_overwrite_frequency=num_steps does the same.",
        ema_overwrite_frequency=optimizer.ema_overwrite_frequency,
    )
