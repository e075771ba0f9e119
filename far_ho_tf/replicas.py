"""Replicas that share the work of a step.

A step is a gradient oracle, which costs the time, and an update rule. Loops and
update rules run once, in cross-replica context; an objective's derivatives run on
each replica, on its share of the batch, and are averaged by the shares' sizes.
"""

import contextlib

import tensorflow as tf

from far_ho_tf.autodiff import vjp
from far_ho_tf.data.shares import Shares, leading
from far_ho_tf.distribution import local_replicas, num_replicas, totals
from far_ho_tf.draws import recorded_draws, shared_draws
from far_ho_tf.packing import pack, unpack
from far_ho_tf.tracing import once_traced


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
        """A function's value on a batch.

        Args:
            function: Callable(batch) -> structure of tensors and `None`.
            batch: A structure of tensors.
        """
        return function(batch)

    def pullback(self, function, sources, batch):
        """A function's value on a batch, and its vector–Jacobian product.

        Args:
            function: Callable(batch) -> structure of floating tensors.
            sources: Structure of tensors or `tf.Variable`s that it reads.
            batch: A structure of tensors.

        Returns:
            The value; a callable(cotangents) that gives the product, structured as
            the sources: `None` where nothing depends on the source.
        """
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

        Returns:
            Structured as the function's values. Of what is not floating (seeds)
            there is no mean: it must be, and is taken to be, the same everywhere.
        """
        program, parts = self._parts(function, batch)
        if not parts:
            return function(batch)
        return self._reduce(parts, lambda number: program(parts[number]))

    def pullback(self, function, sources, batch):
        """The mean of values on the shares, and its vector–Jacobian product."""
        program, parts = self._parts(function, batch)
        if not parts:
            return super().pullback(function, sources, batch)
        taped = {}

        def forward(number):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                targets = program(parts[number])
            taped[number] = tape, targets
            return targets

        def pull(cotangents):
            return self._reduce(
                parts, lambda number: vjp(*taped[number], sources, cotangents)
            )

        return self._reduce(parts, forward), pull

    def _parts(self, function, batch):
        """The function on shares, and this worker's.

        Returns:
            `OnShares`; a mapping from the numbers of replicas to `Share`s, which is
            empty where the batch has no examples.
        """
        shares = Shares(batch, self._strategy.num_replicas_in_sync)
        if shares.size is None:
            return None, {}
        program = OnShares(function, batch, shares, self._compiled)
        parts = {}
        for number, _ in local_replicas(self._strategy):
            parts[number] = shares.part(number)
            program.trace(parts[number])
        return program, parts

    def _reduce(self, parts, make):
        """The weighted mean of what each replica makes of its share.

        One vector for each dtype travels between devices.

        Args:
            parts: Mapping from numbers of replicas to `Share`s.
            make: Callable(number) -> structure of tensors and `None`.
        """
        made = []

        def on_replica():
            context = tf.distribute.get_replica_context()
            number = int(tf.get_static_value(context.replica_id_in_sync_group))
            made.append(make(number))
            return pack(made[-1], parts[number].weight)

        sums, others = totals(self._strategy, on_replica)
        return unpack(made[0], sums, others)


class OnShares:
    """A function of a batch as one program for each size of a share.

    Not one for each replica: it is traced on no device and runs on the caller's.

    Args:
        function: Callable(batch) -> structure of tensors and `None`.
        batch: A structure of tensors.
        shares: The batch's `Shares`.
        compiled: Whether XLA compiles it.
    """

    def __init__(self, function, batch, shares, compiled=False):
        self._function = function
        self._batch = batch
        self._size = shares.size
        self._compiled = compiled
        self._programs = {}

    def __call__(self, share):
        """The function's value on a `Share`."""
        self.trace(share)
        return self._programs[_shapes(share)](share.tensors, share.first)

    def trace(self, share):
        """Makes the program for a `Share`, where there is no replica context.

        Where a replica is known, Keras' losses would divide by the number of them.
        """
        if _shapes(share) in self._programs:
            return
        with tf.device(None), _synchronization_refused():
            with recorded_draws() as drawn:
                program = self._trace(share)
            if drawn:
                # Not within the trace of a share: Keras' calls of a model do not nest.
                with recorded_draws() as whole:
                    once_traced(self._function).get_concrete_function(self._batch)
                program = self._trace(share, whole)
        self._programs[_shapes(share)] = program

    def _trace(self, share, whole=None):
        """Args: share: A `Share`; whole: The shapes of the draws of the batch."""

        def on_share(tensors, first):
            rows = contextlib.nullcontext()
            if whole:
                rows = shared_draws(leading(tensors), first, self._size, whole)
            with rows:
                return self._function(tf.nest.pack_sequence_as(self._batch, tensors))

        compiler = once_traced(on_share, jit_compile=self._compiled)
        return compiler.get_concrete_function(share.tensors, share.first)


def _shapes(share):
    return tuple(tuple(tensor.shape) for tensor in share.tensors)


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
