"""Which hyperparameters something depends on, as found while tracing."""

from collections.abc import Iterable

from far_ho_tf._types import Gradient
from far_ho_tf.problem.inspection import no_dependence
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import path_of


class Dependence:
    """Collects, over the parts of a problem, what depends on which λ.

    Args:
        problem: A `PureProblem`.
    """

    def __init__(self, problem: PureProblem) -> None:
        self._hyperparameters = problem.hyperparameters
        self._depends = [False] * len(self._hyperparameters)

    def note(self, flags: Iterable[Gradient | bool | None]) -> None:
        """Notes what a part depends on.

        Args:
            flags: List aligned with the hyperparameters: booleans, or
                gradients that are `None` where there is no dependence.
        """
        self._depends = [
            depends or (flag is not None and flag is not False)
            for depends, flag in zip(self._depends, flags, strict=True)
        ]

    def paths(self) -> list[str]:
        """Those that something depends on, by name."""
        pairs = zip(self._hyperparameters, self._depends, strict=True)
        return [path_of(variable) for variable, depends in pairs if depends]

    def check(self) -> None:
        """Refuses a hyperparameter that nothing depends on."""
        for variable, depends in zip(self._hyperparameters, self._depends, strict=True):
            if not depends:
                raise ValueError(no_dependence(variable, self._hyperparameters))
