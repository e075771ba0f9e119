"""The callback by which a run goes on after its process was stopped."""

import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf.checks import call_of, check_count, is_integer, require, warn_user
from far_ho_tf.distribution.strategies import gathered, worker_name
from far_ho_tf.hypergradients import DivergenceError, NonFiniteError
from far_ho_tf.resuming import description, tuner_state
from far_ho_tf.resuming.files import CheckpointError, Files, number_of
from far_ho_tf.resuming.interfaces import Tuner
from far_ho_tf.resuming.locks import lock, unlock
from far_ho_tf.resuming.same_run import SameRun


class Checkpoint(keras.callbacks.Callback):
    """Saves all that `HyperOptimizer.fit` needs to go on after a stop.

    A script that was killed, in a hyper-iteration or between two, is started again
    as it was, and ends with the hyperparameters, the model and the history, bit for
    bit on the same machine, that it would have ended with. Its first `fit` finds
    what was saved; fits that were complete are passed over, and the one that was
    under way goes on. One that had ended, by `stop_training` or because it diverged,
    stays so. More `hyper_iterations` than a last, complete `fit` had are made up.

    Saved are the hyperparameters, the optimizers of them, the state of the inner run
    with slots and tangents, the values that it starts from, all variables of what
    each problem was given as `variables`, the positions in the data, and the history.

    What else the script makes must be as it was: the tensors that objectives read,
    variables that are not those of `variables`, the seed of a `tf.data.Dataset` that
    shuffles (of it, what the run has read is read again; two that are made from one
    that shuffles are warned of: they draw in no certain order). Callbacks begin anew:
    `EarlyStopping` has forgotten the best and counts its patience from there.
    `CSVLogger` needs `append=True`.

    Give the same object to every `fit` of a `HyperOptimizer`, and let the script make
    them in the same order. After a fit that was passed over, the hyperparameters are
    those that it ended with; the model holds the state that was saved last.

    A `fit` that is called again in the same process counts as a further one, and does
    all its hyper-iterations. `run` is not recorded: it may come after the last `fit`
    only.

    Args:
        directory: Path of a folder, for this run alone; it is made if it is missing.
            Each of several workers has a folder in it; they need not share a disk.
        every: Positive integer, hyper-iterations between two savings. The end of a
            `fit` is always saved.
        max_to_keep: Positive integer: how many savings stay.
        allow: List of what may be another than it was before the stop, for the run to
            go on with as it is now; anything else that is another is refused:
            "outer_optimizer" (of the same kind it keeps its moments and counts),
            "hypergradient" (the mode), "dynamics", "objectives", "data" (read from
            their start), "constraints", "initial_values" (those that were saved
            count), "fit" (its `num_steps`, `mode`, `episodes` and `outer_limit`).

    Raises:
        ValueError: If an argument is wrong; a `CheckpointError`, which is one, if
            `directory` is a file, or such that TensorFlow can save nothing there. By
            `fit` a `CheckpointError`: if what is in `directory` is damaged or belongs
            to another run, or if there were runs that it has not recorded. The
            `HyperOptimizer` is as it was then.
        OSError: By `fit`, if the folder cannot be written to.

    Example:

    >>> import far_ho_tf as far, keras, tempfile
    >>> def tune(directory, hyper_iterations):
    ...     w = keras.Variable(0.0, name="w")
    ...     target = far.Hyperparameter(0.0, name="target")
    ...     problem = far.BilevelProblem(
    ...         inner_objective=lambda: (w - target) ** 2,
    ...         outer_objective=lambda: (w - 1.0) ** 2,
    ...         variables=[w],
    ...         dynamics=far.GradientDescent(0.25),
    ...         hyperparameters=[target],
    ...     )
    ...     tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.Adam(0.1))
    ...     checkpoint = far.Checkpoint(directory)
    ...     tuner.fit(hyper_iterations, num_steps=5, callbacks=[checkpoint], verbose=0)
    ...     return float(target), tuner.history.epoch
    >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
    ...     whole = tune(one, hyper_iterations=4)
    ...     half = tune(two, hyper_iterations=2)
    ...     rest = tune(two, hyper_iterations=4)
    >>> half[1], rest[1], rest == whole
    ([0, 1], [0, 1, 2, 3], True)
    """

    # What `fit` gives it.
    model: Tuner
    params: dict[str, Any]

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int = 1,
        max_to_keep: int = 2,
        allow: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._same = SameRun(allow)
        self._every = check_count("every", every)
        max_to_keep = check_count("max_to_keep", max_to_keep)
        try:
            self._files = Files(directory, max_to_keep)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        self._tuner: Tuner = None  # pyright: ignore[reportAttributeAccessIssue]
        self._description: dict[str, Any] = {}
        self._saved: Any = None  # What was found, as long as its fits are repeated.
        # A record of each `fit`, of those before the stop too.
        self._fits: list[dict[str, Any]] = []
        self._index = -1  # Of the last `fit`.
        self._under_way = False

    def __repr__(self) -> str:
        kept = self._files.max_to_keep
        return call_of(
            self, directory=self._files.directory, every=self._every, max_to_keep=kept
        )

    # The hooks, as `fit` calls them.

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        try:
            self._begin()
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def _begin(self) -> None:
        tuner = self.model
        require(
            hasattr(tuner, "initial_iteration"),
            "far.Checkpoint is a callback of `HyperOptimizer.fit`. A Keras model has "
            "`keras.callbacks.BackupAndRestore`.",
            model=tuner,
        )
        if self._tuner is None:
            self._attach(tuner)
        else:
            lock(self._files.directory)
            self._files.check_last()
        require(
            tuner is self._tuner,
            "A far.Checkpoint serves one HyperOptimizer; make one for each.",
            model=tuner,
        )
        steps = check_count("num_steps", self.params["steps"])
        asked = {"num_steps": steps, "mode": self.params["mode"]}
        asked["episodes"] = _plain(self.params["episodes"])
        asked["outer_limit"] = self.params["outer_limit"]
        if self._under_way:
            self._forget_failed()
        if self._index + 1 < len(self._fits):
            self._repeat(self._index + 1, asked)
        else:
            self._check_recorded()
            self._fits.append(asked | {"done": 0, "stopped": False, "diverged": None})
        self._index += 1
        self._under_way = True
        if tuner_state.runs_of(tuner) == 0 and worker_name(tuner.strategy):
            self._save(0)  # Of several workers, none must be without a saving.

    def on_update_end(self) -> None:
        """After each outer update, before anything else of the next one."""
        done = len(self.model.history.epoch)
        if done % self._every == 0 and done < self.params["epochs"]:
            self._save(done)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        fit = self._fits[self._index]
        done = len(self.model.history.epoch)
        if done > fit["done"] or (self.model.divergence and not fit["diverged"]):
            self._save(done)
        self._under_way = False
        unlock(self._files.directory)

    def _attach(self, tuner: Tuner) -> None:
        """Finds out what the folder holds, and whether it is of this run."""
        described = description.describe(tuner)
        path = self._find(tuner.strategy)
        require(
            tuner_state.runs_of(tuner) == 0,
            "far.Checkpoint must be given to the first `fit` of a HyperOptimizer, "
            "before any `run`.",
            hyper_iterations=tuner_state.runs_of(tuner),
        )
        if path is None:
            self._files.check_writable()
            tuner_state.warn_of_orders(tuner)
        lock(self._files.directory)
        if path is not None:
            self._saved = self._files.read(path)
            self._same.check(self._saved, described, self._belongs())
            self._fits = self._saved["fits"]
        self._files.clean()
        self._description = described
        self._tuner = tuner

    def _find(self, strategy: tf.distribute.Strategy | None) -> str | None:
        """The path of what to go on from, or `None`.

        Each of several workers has a folder of its own. What all of them have saved
        counts: of two that were stopped one may be a saving ahead.
        """
        name, whole = worker_name(strategy), self._files.latest()
        if name is None:
            folders = self._files.folders()
            require(
                not folders,
                f"`{self._files.directory}` holds a run of several workers, and cannot "
                "be gone on with by one process.",
                found=folders,
            )
            return whole
        require(
            whole is None,
            f"`{self._files.directory}` holds a run of one process, and cannot be gone "
            "on with by several workers.",
            found=whole,
        )
        self._files = self._files.within(name, max(2, self._files.max_to_keep))
        latest = self._files.latest()
        saved = -1 if latest is None else number_of(latest)
        numbers = gathered(strategy, tf.constant(saved, tf.float64)).numpy()
        # One that was stopped within its first saving, numbered 0, has none.
        require(
            min(numbers) >= 0 or max(numbers) <= 0,
            "All workers must find what they saved. A folder is missing, or the number "
            "of workers is another than before: restore it, or begin anew in another "
            "directory.",
            last_savings_by_replica=[int(number) for number in numbers],
            directory=self._files.directory,
        )
        number = int(min(numbers))
        return self._files.saved_as(number) if number >= 0 else None

    def _repeat(self, index: int, asked: dict[str, Any]) -> None:
        """Brings the tuner to where it was after, or within, a `fit`."""
        fit, last = self._fits[index], index + 1 == len(self._fits)
        whose = f"whose fit {index}"
        done, wanted = fit["done"], self.params["epochs"]
        expected = {name: fit[name] for name in asked}
        self._same.check_fit(expected, asked, f"{self._belongs()} {whose} was called")
        fit |= asked
        ended = fit["stopped"] or bool(fit["diverged"])
        require(
            done <= wanted and (last or ended or done == wanted),
            f"{self._belongs()} {whose} made {done} hyper-iterations"
            f"{'' if last else ' before the next began'}: its `hyper_iterations` must "
            f"be {'at least ' if last else ''}as many.",
            hyper_iterations=wanted,
        )
        tuner_state.restore(self._tuner, self._saved["tuner"], self._same.changed)
        if last:
            self._saved = None  # It is as large as the state.
        else:  # What the script reads before the next `fit`.
            self._tuner.set_weights(fit["hyperparameters"])
        self._tuner.initial_iteration = done
        self._tuner.stop_training = fit["stopped"]
        if fit["diverged"]:
            is_finite = fit.get("diverged_by") == DivergenceError.__name__
            kind = DivergenceError if is_finite else NonFiniteError
            self._tuner.divergence = kind(fit["diverged"])
            warn_user(
                f"{self._belongs()} that diverged and ended at hyper-iteration {done}: "
                f"{fit['diverged']}"
            )
        history = self._tuner.history.history
        history.update({name: list(values) for name, values in fit["history"].items()})

    def _save(self, done: int) -> None:
        tuner, fit = self._tuner, self._fits[self._index]
        fit["done"] = done
        fit["stopped"] = tuner.stop_training
        fit["hyperparameters"] = tuner.get_weights()
        fit["diverged"] = str(tuner.divergence) if tuner.divergence else None
        fit["diverged_by"] = type(tuner.divergence).__name__
        fit["history"] = {
            name: [float(v) if isinstance(v, numbers.Real) else v for v in values]
            for name, values in tuner.history.history.items()
        }
        content = {
            "of": self._description,
            "versions": description.versions(),
            "seed": description.random_seed(),
            "fits": self._fits,
            "tuner": tuner_state.capture(tuner),
        }
        # What diverged counts: its state is another than that before it.
        number = sum(one["done"] + bool(one["diverged"]) for one in self._fits)
        self._files.write(content, number)

    def _forget_failed(self) -> None:
        """Takes back the record of a `fit` that raised before it made anything."""
        recorded = sum(fit["done"] for fit in self._fits[:-1])
        made = tuner_state.runs_of(self._tuner) - recorded
        require(
            made == 0 and self._index + 1 == len(self._fits),
            "The last `fit` was interrupted. Make a new HyperOptimizer and a new "
            "far.Checkpoint: they go on with it from what was saved.",
            hyper_iterations=made,
        )
        self._fits.pop()
        self._index -= 1

    def _check_recorded(self) -> None:
        """Refuses runs between fits: a resumed script would make them again."""
        recorded = sum(fit["done"] for fit in self._fits)
        require(
            tuner_state.runs_of(self._tuner) == recorded,
            f"far.Checkpoint has recorded {recorded} hyper-iterations, and no others "
            "may be made: give it to every `fit`, and do not `run` before the last.",
            hyper_iterations=tuner_state.runs_of(self._tuner),
        )

    def _belongs(self) -> str:
        return f"The checkpoint `{self._files.latest()}` belongs to a run"


def _plain(episodes: Any) -> int | list[int] | None:
    """As JSON will give it back."""
    one = episodes is None or is_integer(episodes)
    return episodes if one else [int(number) for number in episodes]  # pyright: ignore[reportOptionalIterable]
