"""Callbacks of `HyperOptimizer.fit`.

Keras' own callbacks serve there too: a hyper-iteration takes the place of an
epoch, and the `HyperOptimizer` that of the model.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import keras

from far_ho_tf.checks import require, shown
from far_ho_tf.notices import once, show
from far_ho_tf.resuming.checkpoint import Checkpoint
from far_ho_tf.resuming.interfaces import Tuner


class ProgressBar(keras.callbacks.Callback):
    """Shows the time left and elapsed, and the values in the logs.

    `HyperOptimizer.fit` adds it unless `verbose=0`.

    Args:
        verbose: 1 for a bar that is redrawn, 2 for one line at the end.

    Example:

    >>> import far_ho_tf as far
    >>> bar = far.callbacks.ProgressBar(verbose=2)
    """

    # What `fit` gives it.
    model: Tuner
    params: dict[str, Any]

    def __init__(self, verbose: int = 1) -> None:
        super().__init__()
        self._verbose = verbose

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._start, self._tell = time.time(), once(self._show)
        self._bar = keras.utils.Progbar(
            self.params["epochs"],
            verbose=self._verbose,
            unit_name="hyper-iteration",
        )
        before = getattr(self.model, "initial_iteration", 0)
        # Of one that had ended before, nothing more will be shown.
        ended = before == self.params["epochs"] or self.model.stop_training
        self._bar.update(before, finalize=bool(before and ended))

    def say(self, text: str) -> None:
        """Shows below the bar what a hyper-iteration waits for."""
        self._tell(text)

    def _show(self, text: str) -> None:
        if self._verbose == 1:
            show(text, begin="\n", end="")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        values = {"elapsed_seconds": time.time() - self._start, **(logs or {})}
        self._bar.stateful_metrics.update(values)  # Shown as they are, not averaged.  # pyright: ignore[reportOptionalMemberAccess]
        finished = epoch + 1 == self.params["epochs"] or self.model.stop_training
        self._bar.update(epoch + 1, list(values.items()), finished)
        self._tell = once(self._show)  # Of the next one, which may wait for the same.


def progress_bar(verbose: Any) -> ProgressBar | None:
    """The bar that `verbose` asks for, if any."""
    require(
        verbose in (0, 1, 2, "auto"),
        "`verbose` must be 0, 1, 2 or 'auto'.",
        verbose=verbose,
    )
    return ProgressBar(2 if verbose == 2 else 1) if verbose else None


# Keras' callbacks that a `fit` cannot serve: the method that would fail, and why.
Refused: TypeAlias = Mapping[type[keras.callbacks.Callback], tuple[str, str]]
_REFUSED: Refused = {
    keras.callbacks.ModelCheckpoint: (
        "on_epoch_end",
        "saves a Keras model, and `fit` runs a HyperOptimizer. Remedy: "
        "far.Checkpoint(directory), by which a stopped run goes on; or, after `fit`, "
        "`save` of the model.",
    ),
    keras.callbacks.BackupAndRestore: (
        "on_train_begin",
        "saves a Keras model, and `fit` runs a HyperOptimizer. Remedy: "
        "far.Checkpoint(directory), by which a stopped run goes on.",
    ),
}
# What Keras cannot tell to be better where it is lower.
_LOWER_IS_BETTER = ("outer_value", "hypergradient_norm")


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """A list of Keras callbacks that `HyperOptimizer.fit` can serve."""
    callbacks = _listed(callbacks)
    for index, callback in enumerate(callbacks):
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "`callbacks` must be a list of `keras.callbacks.Callback`s (of a "
                "function one is made by keras.callbacks.LambdaCallback). Received: "
                f"callbacks[{index}]={shown(callback)}"
            )
    prepare_callbacks(callbacks, _REFUSED)
    return callbacks


def prepare_callbacks(callbacks: Any, refused: Refused) -> None:
    """Refuses some of Keras' callbacks, and tells the others what to minimize.

    Args:
        callbacks: As `fit` takes them.
        refused: A subclass that has a method of its own in the place of the one that
            would fail is none of these.
    """
    for callback in _listed(callbacks):
        for kind, (method, why) in refused.items():
            harmful = isinstance(callback, kind) and (
                getattr(type(callback), method) is getattr(kind, method)
            )
            require(
                not harmful,
                f"`callbacks` holds {kind.__name__}, which {why}",
                callback=callback,
            )
        monitor = getattr(callback, "monitor", None)
        if getattr(callback, "mode", None) == "auto" and monitor in _LOWER_IS_BETTER:
            callback.mode = "min"  # pyright: ignore[reportAttributeAccessIssue]


def _listed(callbacks: Any) -> list[keras.callbacks.Callback]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if not isinstance(callbacks, (list, tuple)):
        callbacks = [] if callbacks is None else [callbacks]
    return list(callbacks)


def with_checkpoint_last(
    callbacks: Iterable[keras.callbacks.Callback],
) -> tuple[list[keras.callbacks.Callback], Checkpoint | None]:
    """Puts a `Checkpoint` behind the other callbacks, whose effects it saves.

    Args:
        callbacks: Iterable of Keras callbacks.

    Returns:
        List of callbacks, and the `Checkpoint` or `None`.

    Raises:
        ValueError: If there are several.
    """
    callbacks = sorted(callbacks, key=lambda one: isinstance(one, Checkpoint))
    found = [one for one in callbacks if isinstance(one, Checkpoint)]
    require(
        len(found) <= 1,
        "`callbacks` may hold one far.Checkpoint: the state to go on from is one.",
        callbacks=found,
    )
    return callbacks, found[0] if found else None
