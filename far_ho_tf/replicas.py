"""Replicas that share the work of a step.

A step is a gradient oracle, which costs the time, and an update rule. Loops and
update rules run once, in cross-replica context; an objective's derivatives run on
each replica, on its share of the batch, and are averaged by the shares' sizes.
"""

import contextlib

import tensorflow as tf

from far_ho_tf.autodiff import vjp
from far_ho_tf.data.shares import Shares, leading
from far_ho_tf.distribution import local_replicas, num_replicas
from far_ho_tf.draws import recorded_draws, shared_draws
from far_ho_tf.packing import pack, unpack


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
        parts = self._parts(function, batch)
        if not parts:
            return function(batch)
        return self._reduce(parts, lambda number, program, share: program(share))

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
        parts = self._parts(function, batch)
        if not parts:
            return super().pullback(function, sources, batch)
        taped = {}

        def forward(number, program, share):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                targets = program(share)
            taped[number] = tape, targets
            return targets

        def pull(cotangents):
            return self._reduce(
                parts, lambda number, *_: vjp(*taped[number], sources, cotangents)
            )

        return self._reduce(parts, forward), pull

    def _parts(self, function, batch):
        """This worker's shares, and the function as a program for each.

        Where the programs are traced, no replica is known: there Keras' losses would
        divide by their number.

        Returns:
            A mapping from the numbers of replicas to pairs (program, `Share`).
        """
        shares = Shares(batch, self._strategy.num_replicas_in_sync)
        if shares.size is None:
            return {}
        call = traced(function, batch, shares, self._compiled)
        parts = {}
        for number, _ in local_replicas(self._strategy):
            share = shares.part(number)
            parts[number] = call(share), share
        return parts

    def _reduce(self, parts, make):
        """The weighted mean of what each replica makes of its share.

        One vector for each dtype travels between devices.

        Args:
            parts: Mapping from numbers of replicas to pairs (program, `Share`).
            make: Callable(number, program, share) -> structure of tensors and `None`.
        """
        made = []

        def on_replica():
            context = tf.distribute.get_replica_context()
            number = int(tf.get_static_value(context.replica_id_in_sync_group))
            program, share = parts[number]
            made.append(make(number, program, share))
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
        Callable(share) -> callable(share) -> the function's value on it; the first
        traces, where there is no replica context.
    """

    def trace(share, shapes=None):
        def on_share(tensors, first):
            rows = contextlib.nullcontext()
            if shapes:
                rows = shared_draws(leading(tensors), first, shares.size, shapes)
            with rows:
                return function(tf.nest.pack_sequence_as(batch, tensors))

        compiler = tf.function(on_share, autograph=False, jit_compile=compiled)
        return compiler.get_concrete_function(share.tensors, share.first)

    def trace_with_draws(share):
        with recorded_draws() as drawn:
            concrete = trace(share)
        if not drawn:
            return concrete
        # Not within the trace of a share: Keras' calls of a model do not nest.
        with recorded_draws() as shapes:
            tf.function(function, autograph=False).get_concrete_function(batch)
        return trace(share, shapes)

    programs = {}

    def program(share):
        key = tuple(tuple(tensor.shape) for tensor in share.tensors)
        if key not in programs:
            with tf.device(None), _synchronization_refused():
                programs[key] = trace_with_draws(share)
        return lambda share: programs[key](share.tensors, share.first)

    return program


@contextlib.contextmanager
def _synchronization_refused():
    """Within, to ask for all replicas' values, as of one there is nothing to ask."""

    def refuse(*arguments, **options):
        raise ValueError(
            "An objective synchronizes replicas, as "
            "BatchNormalization(synchronized=True) does: that cannot be differentiated "
            "twice within a loop. Without, each replica normalizes its share of the "
            "batch by itself."
        )

    context = tf.distribute.get_replica_context()
    context.all_reduce = refuse
    try:
        yield
    finally:
        del context.all_reduce
