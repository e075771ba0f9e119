"""Reverse mode: backwards over the trajectory."""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import check_count, is_integer, require, warn_user
from far_ho_tf.graphs.buffers import capacity
from far_ho_tf.hypergradients import costs
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.reverse.binomial import Itinerary, binomial
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.trajectory import Recomputed, Segmented, Stored

# Bytes of residuals that may be kept of a run even where its states take less.
_RESIDUALS = 2**28
# Bytes that an itinerary takes for each step, measured.
_ITINERARY = 75


class Storage(NamedTuple):
    """What a run in reverse mode keeps.

    Attributes:
        states: How many states at any time.
        segment: How many consecutive steps are visited backwards with all their states
            and residuals kept; 0: one at a time.
        limit: Bytes that the residuals of a step may take; `None`: none are kept.
    """

    states: int
    segment: int = 0
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class ReverseHG(HyperGradient):
    """Reverse mode (backpropagation through the training run).

    The forward loop keeps states s_t. The backward loop goes from α_T = ∇E(s_T) to
    α_0 by α_t = α_{t+1} A_t and adds up α_{t+1} B_t, where A_t and B_t are the
    Jacobians of step t in the state and in λ. Time: three to four training runs,
    for any number of hyperparameters. Memory: num_steps copies of the state and, unless
    `keep_residuals=False`, of residuals; less with checkpoints.

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
    2000 (checkpoints); Shaban et al. 2019 (truncation).
    """

    checkpointing: int | str | None = None
    truncation: int | None = None
    memory_budget: int | None = None
    keep_residuals: bool | str = "auto"
    keep_products: dataclasses.InitVar[bool | str | None] = None

    def __post_init__(self, keep_products):
        super().__post_init__()
        if keep_products is not None:
            warn_user("`keep_products` is called `keep_residuals`.", DeprecationWarning)
            object.__setattr__(self, "keep_residuals", keep_products)
        require(
            self.checkpointing is None
            or (isinstance(self.checkpointing, str) and self.checkpointing == "sqrt")
            or (is_integer(self.checkpointing) and self.checkpointing > 0),
            "`checkpointing` must be None, 'sqrt' or a positive integer.",
            checkpointing=self.checkpointing,
        )
        for name in ("truncation", "memory_budget"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
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

    def buffers(self, problem, num_steps):
        count = self.differentiated_steps(num_steps)
        storage = self.storage(problem, num_steps)
        steps = capacity(num_steps)
        room = capacity(count, costs.state_bytes(problem))
        if storage.states == count:
            states = min(room, self.truncation or room)
            if self.memory_budget is not None:
                states = costs.states_within(problem, states, self.memory_budget)
            storage = storage._replace(states=states, segment=states)
            return ReverseBuffers(steps, storage, True)
        if storage.segment:
            size = _segment(room)
            storage = storage._replace(states=2 * size, segment=size)
        return ReverseBuffers(steps, storage, False)

    def held(self, problem, num_steps):
        _, storage, all_states = self.buffers(problem, num_steps)
        size = storage.states * costs.state_bytes(problem)
        if not (all_states or storage.segment):
            size += _ITINERARY * num_steps
        return super().held(problem, num_steps) + size

    def itinerary(self, problem, num_steps):
        count = self.differentiated_steps(num_steps)
        storage = self.storage(problem, num_steps)
        if storage.states == count:
            return ()
        if storage.segment:
            return tf.constant(storage.segment)
        return _itinerary(count, storage.states)

    def differentiate(self, problem, settings, inputs):
        _, storage, all_states = settings.buffers
        run = ReverseRun(problem, settings, inputs, storage.limit)
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

    def describe(self, problem, num_steps):
        count = self.differentiated_steps(num_steps)
        truncated = {"truncated": count} if count < num_steps else {}
        return truncated | {"kept_states": self.storage(problem, num_steps).states}

    def differentiated_steps(self, num_steps):
        return min(num_steps, self.truncation or num_steps)

    def storage(self, problem, num_steps):
        """What a run of so many steps keeps, as a `Storage`."""
        count = self.differentiated_steps(num_steps)
        if self.memory_budget is not None:
            fit = costs.states_within(problem, count, self.memory_budget)
            return _scheduled(fit, count)
        keeps = self.keep_residuals and self._may_keep_residuals
        size = costs.state_bytes(problem)
        if self.checkpointing is None:
            limit = max(size, _RESIDUALS // capacity(count, size))
            return Storage(count, count, limit if keeps else None)
        if self.checkpointing != "sqrt":
            return _scheduled(self.checkpointing, count)
        # Who asks for checkpoints is short of memory: no more than another state each.
        limit = size if keeps else None
        length = _segment(count)
        states = length + math.ceil(count / length)
        if states >= count:
            return Storage(count, count, limit)
        return Storage(states, length, limit)

    @property
    def _may_keep_residuals(self):
        return self.checkpointing in (None, "sqrt") and self.memory_budget is None


class ReverseBuffers(NamedTuple):
    """What a program in reverse mode holds.

    Attributes:
        steps: The most steps of a run.
        storage: The `Storage` for which there is room.
        all_states: Whether all states are kept.
    """

    steps: int
    storage: Storage
    all_states: bool


def _segment(count):
    """The steps of a segment of so many."""
    return math.isqrt(count - 1) + 1


@functools.lru_cache(maxsize=16)
def _itinerary(count, num_states):
    """The `Itinerary`, its vectors as long as those of others."""

    def tensor(values):
        values = np.asarray(values)
        if values.ndim:
            values = np.pad(values, (0, capacity(len(values)) - len(values)))
        return tf.constant(values, tf.int32)

    with tf.init_scope():
        return Itinerary(*map(tensor, binomial(count, num_states)))


def _scheduled(states, count):
    return Storage(states) if states < count else Storage(count, count)
