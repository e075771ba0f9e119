"""Everything that knows `tf.distribute`: replicas that share the work of a step.

A step is a gradient oracle, which costs the time, and an update rule. Loops and
update rules run once, in cross-replica context; an objective's derivatives run on
each replica, on its share of the batch, and are averaged by the shares' sizes.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import keras
import tensorflow as tf

from far_ho_tf.autodiff import vjp
from far_ho_tf.checks import require
from far_ho_tf.data.shares import Shares, leading
from far_ho_tf.draws import shared_draws

_SUPPORTED = {
    name: getattr(tf.distribute, name)
    for name in ("MirroredStrategy", "MultiWorkerMirroredStrategy", "OneDeviceStrategy")
}


def check_strategy(strategy):
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


def num_replicas(strategy):
    """Integer, 1 where there is no strategy."""
    return 1 if strategy is None else strategy.num_replicas_in_sync


def device(strategy):
    """A scope in which a program for one replica runs on the strategy's device."""
    if strategy is None:
        return tf.device(None)
    return tf.device(strategy.extended.worker_devices[0])


def local_replicas(strategy):
    """The replicas of this worker.

    Returns:
        List of pairs (number among all replicas, a strategy for its device alone).
    """
    if strategy is None:
        return [(0, None)]
    numbers = []

    def note(context):
        numbers.append(context.replica_id_in_sync_group)
        return tf.zeros([])

    strategy.experimental_distribute_values_from_function(note)
    devices = strategy.extended.worker_devices
    return [
        (number, tf.distribute.OneDeviceStrategy(name))
        for number, name in zip(numbers, devices, strict=True)
    ]


def summed(strategy, structure):
    """The sum over workers of a structure of floating tensors, on each of them."""
    local = local_replicas(strategy)
    if num_replicas(strategy) == len(local):
        return structure
    vectors, _ = pack(structure, 1.0)

    def on_first(vector):
        def value(context):
            first = context.replica_id_in_sync_group == local[0][0]
            return vector if first else tf.zeros_like(vector)

        values = strategy.experimental_distribute_values_from_function(value)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return unpack(structure, [on_first(vector) for vector in vectors], [])


def outside_scope(function, *arguments):
    """Calls a function as it were outside of any `strategy.scope()`.

    There Keras' optimizers update variables that are mirrored, and others. A scope
    belongs to a thread.
    """
    if not tf.distribute.in_cross_replica_context():
        return function(*arguments)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()


def scope_of(variables):
    """The `strategy.scope()` in which variables were made; of none, an empty one."""
    for variable in variables:
        value = variable.value if isinstance(variable, keras.Variable) else variable
        if isinstance(value, tf.distribute.DistributedValues):
            return value.distribute_strategy.scope()
    return contextlib.nullcontext()


def gathered(strategy, tensor):
    """A tensor of each replica's, stacked; on each worker the tensor is its own."""

    (rows,), _ = on_each(strategy, lambda _: ([tensor], []))
    return rows


def on_each(strategy, function):
    """What a function makes on each replica.

    Args:
        strategy: A `tf.distribute.Strategy`.
        function: Callable(number of the replica, an int32 scalar) -> two lists of
            tensors.

    Returns:
        The tensors of the first list, stacked over replicas; those of the second, of
        one replica, as they must be the same on all.
    """

    def on_replica():
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group
        rows, others = function(number)
        place = tf.one_hot(number, context.num_replicas_in_sync)
        return [tf.tensordot(tf.cast(place, r.dtype), r, 0) for r in rows], others

    rows, others = strategy.run(on_replica)
    # Not by strategy.gather: with two strategies in one process it fails.
    total = tf.distribute.ReduceOp.SUM
    rows = [strategy.reduce(total, row, axis=None) for row in rows]
    return rows, [strategy.experimental_local_results(one)[0] for one in others]


def as_replicas(strategy, compiled):
    """What shares the batches of a run.

    Args:
        strategy: A supported `tf.distribute.Strategy` or `None`.
        compiled: Whether XLA compiles what runs on each of several replicas.
    """
    if num_replicas(strategy) == 1:
        return ONE_REPLICA
    return Replicas(strategy, compiled)


class OneReplica:
    """Takes each batch as a whole."""

    def mean(self, function, batch):
        """See `Replicas.mean`."""
        return function(batch)

    def pullback(self, function, sources, batch):
        """See `Replicas.pullback`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            targets = function(batch)
        return targets, lambda cotangents: vjp(tape, targets, sources, cotangents)


ONE_REPLICA = OneReplica()


class Replicas(OneReplica):
    """Splits each batch over the replicas of a strategy.

    The shares' sizes differ by one example at most. Tensors of a batch without a
    first axis go to all replicas, and a batch without any examples is not split.

    Args:
        strategy: A `tf.distribute.Strategy`.
        compiled: Whether XLA compiles what runs on a replica.
    """

    def __init__(self, strategy, compiled):
        self._strategy = strategy
        self._compiled = compiled

    def mean(self, function, batch):
        """The mean of a function's values on the shares, weighted by their sizes.

        Args:
            function: Callable(batch) -> structure of tensors and `None`.
            batch: A structure of tensors.

        Returns:
            Structured as the function's values. Of what is not floating (seeds)
            there is no mean: it must be, and is taken to be, the same everywhere.
        """
        shares = Shares(batch, self._strategy.num_replicas_in_sync)
        if shares.size is None:
            return function(batch)
        call = traced(function, batch, shares, self._compiled)
        return self._reduce(shares, lambda _, share: call(share))

    def pullback(self, function, sources, batch):
        """The same, and the mean's vector–Jacobian product.

        Args:
            function: Callable(batch) -> structure of floating tensors.
            sources: Structure of tensors or `tf.Variable`s that it reads.
            batch: A structure of tensors.

        Returns:
            The mean; a callable(cotangents) that gives the product, structured as
            the sources: `None` where nothing depends on the source.
        """
        shares = Shares(batch, self._strategy.num_replicas_in_sync)
        if shares.size is None:
            return super().pullback(function, sources, batch)
        call = traced(function, batch, shares, self._compiled)
        taped = {}

        def forward(index, share):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                targets = call(share)
            taped[index] = tape, targets
            return targets

        def pull(cotangents):
            return self._reduce(
                shares, lambda index, _: vjp(*taped[index], sources, cotangents)
            )

        return self._reduce(shares, forward), pull

    def _reduce(self, shares, make):
        """The weighted mean of what each replica makes of its share.

        One vector for each dtype travels between devices.
        """
        made = []

        def on_replica():
            context = tf.distribute.get_replica_context()
            index = int(tf.get_static_value(context.replica_id_in_sync_group))
            with tf.device(None):  # So that no more than the share is sent.
                share = shares.part(index)
            made.append(make(index, share))
            return pack(made[-1], share.weight)

        vectors, others = self._strategy.run(on_replica)
        total = tf.distribute.ReduceOp.SUM
        sums = [self._strategy.reduce(total, vector, axis=None) for vector in vectors]
        others = [self._strategy.experimental_local_results(one)[0] for one in others]
        return unpack(made[0], sums, others)


def traced(function, batch, shares, compiled=False):
    """A function of a batch as one program for each size of a share.

    Not one for each replica: it is traced on no device and runs on the caller's.

    Args:
        function: Callable(batch) -> structure of tensors and `None`.
        batch: A structure of tensors.
        shares: The batch's `Shares`.
        compiled: Whether XLA compiles it.

    Returns:
        Callable(share) -> the function's value on it.
    """

    def on_share(tensors, first):
        with shared_draws(leading(tensors), first, shares.size):
            return function(tf.nest.pack_sequence_as(batch, tensors))

    program = tf.function(on_share, autograph=False, jit_compile=compiled)
    traces = {}

    def call(share):
        key = tuple(tuple(tensor.shape) for tensor in share.tensors)
        if key not in traces:
            with tf.device(None), _synchronization_refused():
                traces[key] = program.get_concrete_function(share.tensors, share.first)
        return traces[key](share.tensors, share.first)

    return call


def pack(structure, weight):
    """A vector for each floating dtype, times a weight, and the other tensors."""
    flat = [tensor for tensor in tf.nest.flatten(structure) if tensor is not None]
    vectors = []
    for dtype in _floating_dtypes(flat):
        parts = [tf.reshape(tensor, [-1]) for tensor in flat if tensor.dtype == dtype]
        # What has no weight must not count even if it is not a number.
        vectors.append(
            tf.math.multiply_no_nan(tf.concat(parts, 0), tf.cast(weight, dtype))
        )
    return vectors, [tensor for tensor in flat if not tensor.dtype.is_floating]


def unpack(like, vectors, others):
    """Undoes `pack`, for a structure like this one."""
    flat = [tensor for tensor in tf.nest.flatten(like) if tensor is not None]
    parts = {}
    for dtype, vector in zip(_floating_dtypes(flat), vectors, strict=True):
        shapes = [tensor.shape for tensor in flat if tensor.dtype == dtype]
        sizes = [shape.num_elements() for shape in shapes]
        parts[dtype] = [
            tf.reshape(part, shape)
            for part, shape in zip(tf.split(vector, sizes), shapes, strict=True)
        ]
    queues = {dtype: iter(tensors) for dtype, tensors in parts.items()}
    others = iter(others)
    return tf.nest.map_structure(
        lambda tensor: (
            None if tensor is None else next(queues.get(tensor.dtype, others))
        ),
        like,
    )


def _floating_dtypes(tensors):
    found = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating}
    return sorted(found, key=lambda dtype: dtype.name)


@contextlib.contextmanager
def _synchronization_refused():
    try:
        yield
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise ValueError(
            "An objective synchronizes replicas, as "
            "BatchNormalization(synchronized=True) does: that cannot be differentiated "
            "twice within a loop. Without, each replica normalizes its share of the "
            "batch by itself."
        ) from error
