"""Callbacks of `HyperOptimizer.fit`.

Keras' own callbacks serve there too: a hyper-iteration takes the place of an
epoch, and the `HyperOptimizer` that of the model.
"""

import time
from collections.abc import Mapping
from typing import Any

import keras

from far_ho_tf.notices import once, show
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


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """A list of Keras callbacks."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if not isinstance(callbacks, (list, tuple)):
        callbacks = [] if callbacks is None else [callbacks]
    for index, callback in enumerate(callbacks):
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "`callbacks` must be a list of `keras.callbacks.Callback`s (of a "
                "function one is made by keras.callbacks.LambdaCallback). Received: "
                f"callbacks[{index}]={callback!r}"
            )
    return list(callbacks)
