"""What a gradient mode returns."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import warn_user
from far_ho_tf.variables.state import Position, State

# Elements up to which a tensor is written out.
_SHORT = 4


@dataclasses.dataclass(frozen=True)
class Status:
    """What the user must know about a hypergradient.

    Attributes:
        compiler: "xla" or "graph".
        reason: Why not XLA, or an empty string.
        truncated: Number of last steps that were differentiated, where the run
            went on from a state without its tangents, or `truncation` was asked for;
            `None` for all steps.
        kept_states: Number of states that reverse mode kept at any time.
        buffer_bits: Of `ReversibleHG`, bits for each weight and step.
        one_by_one: Tuple of the types of operations that TensorFlow cannot vectorize.
            Forward mode's tangents, or episodes, pass them one by one, and so the
            whole step where one is a loop or a branch ("StatelessWhile",
            "StatelessIf"), which takes longer and is warned of. Values are the same.
    """

    compiler: str
    reason: str = ""
    truncated: int | None = None
    kept_states: int | None = None
    buffer_bits: float | None = None
    one_by_one: tuple[str, ...] = ()


class _Named:
    """Hypergradients that can be read by name."""

    names: tuple[str, ...]
    hypergradients: list[tf.Tensor]

    @property
    def by_name(self) -> dict[str, tf.Tensor]:
        """The hypergradients by the names of their hyperparameters."""
        return dict(zip(self.names, self.hypergradients, strict=True))

    def _told(self) -> str:
        pairs = self.by_name.items()
        return "{" + ", ".join(f"{name}: {_short(one)}" for name, one in pairs) + "}"


@dataclasses.dataclass(frozen=True, repr=False)
class HyperGradientResult(_Named):
    """A hypergradient and what came with it.

    Attributes:
        outer_value: Scalar tensor E(s_T, λ).
        hypergradients: List of tensors dE(s_T(λ), λ)/dλ, aligned with
            `problem.hyperparameters`, of their shapes and dtypes.
        inner_values: Tensor of shape (num_steps,): the inner objective before
            each step.
        choices: Mapping from the names of what the dynamics chose in each step
            (see `Dynamics.choices`) to tensors whose first axis has num_steps.
        state: The final `State` s_T; `None` where all episodes ran on other workers.
        status: A `Status`, or `None` likewise.
        tangents: In forward mode dS_T/dλ: a `State` of tensors whose first
            axis goes over all elements of all hyperparameters, its extra part
            of floating tensors only. `None` in other modes, and where they
            were not kept.
        outer_values: Of a run over several episodes, the outer value of each, of which
            `outer_value` is the mean. Then inner values and choices have a first axis
            that counts episodes, and the state is that of the last.
        end: The `Position` at which the run ended: `compute(..., start=result.end)`
            goes on from it. `None` over episodes, which begin anew.
        names: The hyperparameters' names; one that is there twice has a number behind.

    Example:

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(1.0, name="w")
    >>> rate = far.Hyperparameter(0.25, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: w * w,
    ...     outer_objective=lambda: 1.0 * w,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ReverseHG().compute(problem, num_steps=2)
    >>> float(result.by_name["rate"])
    -2.0
    >>> result
    HyperGradientResult(outer_value=0.25, hypergradients={rate: -2}, num_steps=2)
    """

    outer_value: tf.Tensor
    hypergradients: list[tf.Tensor]
    inner_values: tf.Tensor
    choices: dict[str, tf.Tensor]
    state: State | None
    status: Status | None
    tangents: State | None = None
    outer_values: tf.Tensor | None = None
    end: Position | None = None
    names: tuple[str, ...] = dataclasses.field(kw_only=True)

    def __repr__(self) -> str:
        episodes = ""
        if self.outer_values is not None:
            episodes = f", episodes={self.outer_values.shape[0]}"
        return (
            f"HyperGradientResult(outer_value={_short(self.outer_value)}, "
            f"hypergradients={self._told()}, "
            f"num_steps={self.inner_values.shape[-1]}{episodes})"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class MeanResult(_Named):
    """The mean over a list of problems, as `HyperOptimizer` takes it.

    Attributes:
        outer_value: Scalar tensor, the mean of the outer values.
        hypergradients: List of tensors, the mean hypergradients, aligned with the
            problems' hyperparameters, of their shapes and dtypes.
        results: List of the `HyperGradientResult`s of the problems; `None` for one that
            ran on another worker.
        outer_values: Vector: the outer value of each problem.
        inner_values: Tensor of shape (problems, num_steps).
        names: The hyperparameters' names; one that is there twice has a number behind.
    """

    outer_value: tf.Tensor
    hypergradients: list[tf.Tensor]
    results: list[HyperGradientResult | None]
    outer_values: tf.Tensor
    inner_values: tf.Tensor
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"MeanResult(outer_value={_short(self.outer_value)}, "
            f"hypergradients={self._told()}, problems={len(self.results)})"
        )

    def __getattr__(self, name: str) -> list[Any]:
        """What stood here before there was `results`; it warns."""
        if name not in ("choices", "state", "status", "tangents"):
            raise AttributeError(f"MeanResult has no attribute {name!r}", name=name)
        warn_user(
            f"`result.{name}` of several problems goes in the next release: write "
            f"[one and one.{name} for one in result.results].",
            FutureWarning,
        )
        return [one and getattr(one, name) for one in self.results]


def _short(tensor: tf.Tensor) -> str:
    """A tensor in few words: its elements, or shape and norm."""
    values = np.asarray(tensor)
    if not values.ndim:
        return f"{float(values):.4g}"
    if values.size <= _SHORT:
        return "[" + ", ".join(f"{float(one):.4g}" for one in values.ravel()) + "]"
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return f"{tuple(values.shape)} of norm {norm:.4g}"
