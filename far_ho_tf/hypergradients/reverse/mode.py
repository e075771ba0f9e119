"""Reverse mode: backwards over the trajectory."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from far_ho_tf.checks import check_count, is_integer, require, warn_user
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.hypergradients.reverse.binomial import Itinerary
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.storage import ReverseBuffers, StoragePolicy
from far_ho_tf.hypergradients.reverse.trajectory import Recomputed, Segmented, Stored
from far_ho_tf.problem.pure_problem import PureProblem


@dataclasses.dataclass(frozen=True)
class ReverseHG(HyperGradient):
    """Reverse mode (backpropagation through the training run).

    The forward loop keeps states s_t. The backward loop goes from α_T = ∇E(s_T) to
    α_0 by α_t = α_{t+1} A_t and adds up α_{t+1} B_t, where A_t and B_t are the
    Jacobians of step t in the state and in λ. Time: three to four training runs,
    for any number of hyperparameters. Memory: num_steps copies of the state and, unless
    `keep_residuals=False`, of residuals; less where fewer states are kept.

    Args:
        jit_compile: See `HyperGradient`.
        checkpointing: How many states are kept at any time; the others are computed
            again. `None`: all. "sqrt": about 2 √num_steps, the first of each segment of
            √num_steps steps, and those of one segment, which is computed once more as a
            whole. An integer: so many, by the itinerary that computes the fewest steps.
        truncation: Integer K: only the last K steps are differentiated, in the
            memory that K steps take. The hypergradient is then that of a run that
            starts from s_{T−K}, a constant. `None`: all steps.
        memory_budget: Integer, bytes that a hypergradient may take beyond data and
            model: as many states are kept as fit, by the estimate of `far.plan`.
            `None`: no limit. In the place of `checkpointing`.
        keep_residuals: Whether the results of matrix products, or the activations made
            of them, and the derivatives of softmax losses are kept, instead of being
            computed again on the way back: about three training runs instead of four,
            in as much memory again as the states take, or 256 MB where that is more
            and all states are kept. "auto": with all states and "sqrt", not with a
            number of states or a `memory_budget`. None are kept over several replicas,
            and where a step holds loops or branches, or assigns `tf.Variable`s.
        keep_products: What `keep_residuals` was called before; it warns.

    Example, with w_2 = 2 (1 − 2η)² and so d½w_2²/dη = w_2 · (−8) (1 − 2η):

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(2.0, name="w")
    >>> rate = far.Hyperparameter(0.25, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: w * w,
    ...     outer_objective=lambda: 0.5 * w * w,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ReverseHG(checkpointing="sqrt").compute(problem, num_steps=2)
    >>> float(w), float(result.hypergradients[0])
    (0.5, -2.0)

    Source: Franceschi et al. 2017, algorithm 1 (Reverse-HG); Griewank and Walther
    2000 (the itinerary); Shaban et al. 2019 (truncation).
    """

    checkpointing: int | str | None = None
    truncation: int | None = None
    memory_budget: int | None = None
    keep_residuals: bool | str = "auto"
    keep_products: dataclasses.InitVar[bool | str | None] = None

    def __post_init__(self, keep_products: bool | str | None) -> None:
        super().__post_init__()
        if keep_products is not None:
            warn_user(
                "`keep_products` is called `keep_residuals`. The old name goes in the "
                "next release.",
                FutureWarning,
            )
            if self.keep_residuals != "auto":
                raise TypeError(
                    "`keep_products` is the old name of `keep_residuals`: give one of "
                    f"them. Received: keep_products={keep_products!r}, "
                    f"keep_residuals={self.keep_residuals!r}"
                )
            object.__setattr__(self, "keep_residuals", keep_products)
        require(
            self.checkpointing is None
            or (isinstance(self.checkpointing, str) and self.checkpointing == "sqrt")
            or (is_integer(self.checkpointing) and self.checkpointing > 0),  # pyright: ignore[reportOperatorIssue]
            "`checkpointing` must be None, 'sqrt' or a positive integer.",
            checkpointing=self.checkpointing,
        )
        for name in ("truncation", "memory_budget"):
            if getattr(self, name) is not None:
                unit = "bytes" if name == "memory_budget" else ""
                check_count(name, getattr(self, name), of=unit)
        require(
            self.checkpointing is None or self.memory_budget is None,
            "`memory_budget` chooses the checkpoints: give one of the two.",
            checkpointing=self.checkpointing,
            memory_budget=self.memory_budget,
        )
        require(
            isinstance(self.keep_residuals, bool) or self.keep_residuals == "auto",
            "`keep_residuals` must be True, False or 'auto'.",
            keep_residuals=self.keep_residuals,
        )
        require(
            self.keep_residuals is not True or self._may_keep_residuals,
            "`keep_residuals` goes with all states or checkpointing='sqrt'.",
            checkpointing=self.checkpointing,
            memory_budget=self.memory_budget,
        )

    @functools.cached_property
    def policy(self) -> StoragePolicy:
        """The `StoragePolicy`."""
        return StoragePolicy(
            self.checkpointing,
            self.truncation,
            self.memory_budget,
            bool(self.keep_residuals) and self._may_keep_residuals,
        )

    @property
    def _may_keep_residuals(self) -> bool:
        return self.checkpointing in (None, "sqrt") and self.memory_budget is None

    def buffers(self, problem: PureProblem, num_steps: int) -> ReverseBuffers:
        return self.policy.buffers(problem, num_steps)

    def itinerary(
        self, problem: PureProblem, num_steps: int
    ) -> tuple[()] | tf.Tensor | Itinerary:
        return self.policy.itinerary(problem, num_steps)

    def held(self, problem: PureProblem, num_steps: int) -> int:
        states = self.policy.held(problem, num_steps)
        return super().held(problem, num_steps) + states

    def describe(self, problem: PureProblem, num_steps: int) -> dict[str, Any]:
        count = self.policy.differentiated_steps(num_steps)
        truncated = {"truncated": count} if count < num_steps else {}
        kept = self.policy.storage(problem, num_steps).states
        return truncated | {"kept_states": kept}

    def differentiate(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> Outputs:
        _, storage, all_states = settings.buffers
        run = ReverseRun(problem, settings, inputs, storage.keeping)
        first = None
        if self.truncation is not None:
            first = tf.maximum(inputs.num_steps - self.truncation, 0)
        begin = 0 if first is None else first
        if all_states:
            trajectory = Stored(run, begin, storage.states)
        elif storage.segment:
            trajectory = Segmented(run, begin, inputs.itinerary, storage.segment)
        else:
            trajectory = Recomputed(run, begin, inputs.itinerary, storage.states)
        return run.differentiate(trajectory, first)
