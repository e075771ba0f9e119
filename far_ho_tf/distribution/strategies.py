"""Strategies of `tf.distribute`, their devices and workers."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import keras
import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.checks import essence, require
from far_ho_tf.distribution.packing import TwoLists, pack, unpack
from far_ho_tf.graphs.functions import once_traced
from far_ho_tf.notices import in_context

P = ParamSpec("P")
T = TypeVar("T")

_SUPPORTED = {
    name: getattr(tf.distribute, name)
    for name in ("MirroredStrategy", "MultiWorkerMirroredStrategy", "OneDeviceStrategy")
}


class WorkerLostError(RuntimeError):
    """Another worker of a `MultiWorkerMirroredStrategy` has stopped.

    The processes that are left cannot go on. Start all of them again: with
    `far.Checkpoint` they resume from what was saved.
    """


@contextlib.contextmanager
def lost_workers(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Within, TensorFlow's errors of collectives become a `WorkerLostError`.

    Where there are several workers: the GPUs of one have collectives too.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # Their kind is that of other errors too; all name a collective operation.
        collective = "collective" in str(error).lower()
        if not collective or worker_name(strategy) is None:
            raise
        raise WorkerLostError(
            "Another worker of the strategy has stopped or does not answer, and the "
            "run cannot go on without it. Look at what it said last, and start all "
            "workers again: with far.Checkpoint they resume. Received: "
            f"{essence(error)}"
        ) from error


def check_strategy(
    strategy: tf.distribute.Strategy | None,
) -> tf.distribute.Strategy | None:
    """Returns a strategy that is supported, or `None`.

    Raises:
        ValueError: If it is another.
    """
    require(
        strategy is None or isinstance(strategy, tuple(_SUPPORTED.values())),
        f"`strategy` must be None or one of tf.distribute's {', '.join(_SUPPORTED)}.",
        strategy=strategy,
    )
    return strategy


def num_replicas(strategy: tf.distribute.Strategy | None) -> int:
    """Integer, 1 where there is no strategy."""
    return 1 if strategy is None else strategy.num_replicas_in_sync


def device(
    strategy: tf.distribute.Strategy | None,
) -> contextlib.AbstractContextManager:
    """A scope in which a program runs on the strategy's first device."""
    if strategy is None:
        return contextlib.nullcontext()
    return tf.device(strategy.extended.worker_devices[0])


def local_replicas(
    strategy: tf.distribute.Strategy | None,
) -> list[tuple[int, tf.distribute.Strategy | None]]:
    """The replicas of this worker.

    Returns:
        List of pairs (number among all replicas, a strategy for its device alone).
    """
    if strategy is None:
        return [(0, None)]
    numbers = []

    def note(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        numbers.append(context.replica_id_in_sync_group)
        return tf.zeros([])

    strategy.experimental_distribute_values_from_function(note)
    devices = strategy.extended.worker_devices
    return [
        (number, tf.distribute.OneDeviceStrategy(name))
        for number, name in zip(numbers, devices, strict=True)
    ]


def worker_name(strategy: tf.distribute.Strategy | None) -> str | None:
    """The name of this worker among several, such as "worker-0"; `None` for one."""
    if strategy is None or num_replicas(strategy) == len(local_replicas(strategy)):
        return None
    resolver = strategy.cluster_resolver
    return f"{resolver.task_type}-{resolver.task_id}"


def summed(strategy: tf.distribute.Strategy | None, structure: Structure) -> Structure:
    """The sum over workers of a structure of floating tensors, on each of them."""
    if strategy is None or worker_name(strategy) is None:
        return structure
    local = local_replicas(strategy)
    vectors, _ = pack(structure, 1.0)

    def on_first(vector: tf.Tensor) -> tf.Tensor:
        def value(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group == local[0][0]
            return vector if first else tf.zeros_like(vector)

        values = strategy.experimental_distribute_values_from_function(value)
        with lost_workers(strategy):
            return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return unpack(structure, [on_first(vector) for vector in vectors], [])


def outside_scope(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function one that runs as it were outside of any `strategy.scope()`.

    There Keras' optimizers update variables that are mirrored, and others. A scope
    belongs to a thread.
    """

    @functools.wraps(function)
    def outside(*arguments: P.args, **options: P.kwargs) -> T:
        if not tf.distribute.in_cross_replica_context():
            return function(*arguments, **options)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(in_context(function), *arguments, **options).result()

    return outside


def in_scope_of(
    variables: list[Variable], function: Callable[..., T], *arguments: Any
) -> T:
    """Calls a function within the `strategy.scope()` in which variables were made.

    Where they were made in none, outside of any.
    """
    for variable in variables:
        strategy = strategy_of(variable)
        if strategy is not None:
            with strategy.scope():
                return function(*arguments)
    return outside_scope(function)(*arguments)


def strategy_of(variable: Variable) -> tf.distribute.Strategy | None:
    """In whose `strategy.scope()` a variable was made; `None` for an ordinary one."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if isinstance(value, tf.distribute.DistributedValues):
        return value.distribute_strategy  # pyright: ignore[reportAttributeAccessIssue]
    return None


def gathered(strategy: tf.distribute.Strategy, tensor: tf.Tensor) -> tf.Tensor:
    """A tensor of each replica's, stacked; on each worker the tensor is its own."""
    # Run eagerly, TensorFlow would warn of its slowness.
    each = once_traced(lambda one: on_each(strategy, lambda _: ([one], [])))
    with lost_workers(strategy):
        (rows,), _ = each(tensor)
    return rows


def on_each(
    strategy: tf.distribute.Strategy, function: Callable[[tf.Tensor], TwoLists]
) -> TwoLists:
    """What a function makes on each replica.

    Args:
        strategy: A `tf.distribute.Strategy`.
        function: Callable(number of the replica, an int32 scalar) -> two lists of
            tensors.

    Returns:
        The tensors of the first list, stacked over replicas; those of the second, of
        one replica, as they must be the same on all.
    """

    def on_replica() -> TwoLists:
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group
        rows, others = function(number)
        place = tf.one_hot(number, context.num_replicas_in_sync)
        # Not by strategy.gather: with two strategies in one process it fails.
        return [tf.tensordot(tf.cast(place, r.dtype), r, 0) for r in rows], others

    return totals(strategy, on_replica)


def totals(
    strategy: tf.distribute.Strategy, function: Callable[[], TwoLists]
) -> TwoLists:
    """The sums over replicas of what a function makes on each.

    Args:
        strategy: A `tf.distribute.Strategy`.
        function: Callable() -> two lists of tensors, called within a replica.

    Returns:
        The sums of the tensors of the first list; those of the second, of one replica,
        as they must be the same on all.
    """
    summands, others = strategy.run(function)
    add = tf.distribute.ReduceOp.SUM
    with lost_workers(strategy):
        sums = [strategy.reduce(add, summand, axis=None) for summand in summands]
    return sums, [strategy.experimental_local_results(one)[0] for one in others]
