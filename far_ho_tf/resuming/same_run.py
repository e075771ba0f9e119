"""Whether a run goes on with what was saved of it, or with what is another's."""

import re
from collections.abc import Sequence
from typing import Any

from far_ho_tf.checks import require, warn_user
from far_ho_tf.resuming import description
from far_ho_tf.resuming.description import CATEGORIES, Difference, differences, listed

# How the places of what nobody may have meant begin.
_WEIGHTS = ("initial_values.weights", "initial_values.map")

# Categories of which a difference may be one of names.
_NAMED = ("hyperparameters", "variables")


class SameRun:
    """Compares what was saved with what it is to go on as.

    Args:
        allow: Names of `CATEGORIES`, or one: what may have changed on purpose.

    Attributes:
        changed: Set of those that have.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        names = [allow] if isinstance(allow, str) else allow
        require(
            isinstance(names, (list, tuple, set, frozenset))
            and all(name in CATEGORIES for name in names),
            f"`allow` may name {', '.join(map(repr, CATEGORIES))}.",
            allow=allow,
        )
        self._allow = frozenset(names)
        self.changed: set[str] = set()

    def check(
        self, saved: dict[str, Any], described: dict[str, Any], belongs: str
    ) -> None:
        """Refuses another run; warns where that cannot be told.

        Args:
            saved: What `Checkpoint` saved.
            described: The `description.describe` of the run that is to go on.
            belongs: "The checkpoint … belongs to a run".
        """
        then, now = saved["versions"], description.versions()
        if then != now:
            warn_user(
                f"{belongs} of other versions: what is left of it may come out "
                "otherwise than it would have, and what the objectives compute is not "
                f"compared. Received: {listed(differences(then, now))}"
            )
        found = differences(saved["of"], described, same_versions=then == now)
        drawn = [one for one in found if one.place.startswith(_WEIGHTS)]
        seeds = saved["seed"], description.random_seed()
        if drawn and None in seeds and "initial_values" not in self._allow:
            warn_user(
                f"{belongs} that began with other weights, and goes on with its own. "
                "Without keras.utils.set_random_seed nobody can tell whether they were "
                "drawn anew, or are others on purpose."
            )
            found = [one for one in found if one not in drawn]
        self._check(found, f"{belongs} that is another than this one", then)

    def check_fit(
        self, expected: dict[str, Any], received: dict[str, Any], belongs: str
    ) -> None:
        """Refuses a `fit` with other arguments than it had before the stop."""
        found = differences({"fit": expected}, {"fit": received})
        self._check(found, f"{belongs} otherwise", None)

    def _check(self, found: Sequence[Difference], told: str, versions: Any) -> None:
        self.changed |= {one.category for one in found}
        refused = [one for one in found if one.category not in self._allow]
        if not refused:
            return
        kinds = {one.category for one in refused}
        names = [name for name in CATEGORIES if name in kinds]
        remedy = ""
        called = [one for one in refused if one.category in _NAMED]
        if called and all(map(_differs_by_counters, called)):
            remedy = (
                " The names differ by Keras' counters alone: call "
                "keras.backend.clear_session() before the model is made, as where a "
                "cell of a notebook is run again."
            )
        elif len(names) == len(kinds):
            remedy = f" Where it is meant: far.Checkpoint(..., allow={names})."
        made = f" (saved with {versions})" if versions else ""
        raise ValueError(
            f"{told}. Continue that one, or begin "
            f"this one in another directory.{remedy} Received: {listed(refused)}{made}"
        )


def _differs_by_counters(one: Difference) -> bool:
    """Whether names are the same but for the numbers that Keras gives them."""
    names = [re.sub(r"_\d+(?=[/:.=]|$)", "", str(name)) for name in one]
    return names[1] == names[2] and names[1] != "None"
