"""Replicas that share the work of a step.

A step is a gradient oracle, which costs the time, and an update rule. Loops and
update rules run once, in cross-replica context; an objective's derivatives run on
each replica, on its shard of the batch, and are averaged by the shards' sizes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

import tensorflow as tf

from far_ho_tf._types import ConcreteFunction, Structure
from far_ho_tf.checks import require
from far_ho_tf.distribution.packing import TwoLists, pack, unpack
from far_ho_tf.distribution.shards import Shard, Shards, Size, leading
from far_ho_tf.distribution.strategies import local_replicas, num_replicas, totals
from far_ho_tf.graphs.functions import once_traced
from far_ho_tf.patches.random_draws import recorded_draws, sharded_draws
from far_ho_tf.variables.derivatives import Slices, map_slices, vjp

# A function of a batch, to a structure of tensors.
OnBatch: TypeAlias = Callable[[Structure], Structure]


def as_replicas(
    strategy: tf.distribute.Strategy | None, compiled: bool
) -> "OneReplica":
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

    def mean(self, function: OnBatch, batch: Structure) -> Structure:
        """A function's value on a batch.

        Args:
            function: Callable(batch) -> structure of tensors and `None`.
            batch: A structure of tensors.
        """
        return function(batch)

    def pullback(
        self, function: OnBatch, sources: Structure, batch: Structure
    ) -> tuple[Structure, Callable[[Structure], Structure]]:
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

    The shards' sizes differ by one example at most. Tensors of a batch without a
    first axis go to all replicas, and a batch without any examples is not split.

    Args:
        strategy: A `tf.distribute.Strategy`.
        compiled: Whether XLA compiles what runs on a replica.
    """

    def __init__(self, strategy: tf.distribute.Strategy, compiled: bool) -> None:
        self._strategy = strategy
        self._compiled = compiled

    def mean(self, function: OnBatch, batch: Structure) -> Structure:
        """The mean of a function's values on the shards, weighted by their sizes.

        Returns:
            Structured as the function's values. Of what is not floating (seeds)
            there is no mean: it must be, and is taken to be, the same everywhere.
            `Slices` are those of all shards, one after another, times their weights.
        """
        program, parts = self._parts(function, batch)
        if program is None:
            return function(batch)
        return self._reduce(program, parts, lambda number: program(parts[number]))

    def pullback(
        self, function: OnBatch, sources: Structure, batch: Structure
    ) -> tuple[Structure, Callable[[Structure], Structure]]:
        """The mean of values on the shards, and its vector–Jacobian product."""
        program, parts = self._parts(function, batch)
        if program is None:
            return super().pullback(function, sources, batch)
        taped: dict[int, tuple[tf.GradientTape, Structure]] = {}

        def forward(number: int) -> Structure:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                targets = program(parts[number])
            taped[number] = tape, targets
            return targets

        def pull(cotangents: Structure) -> Structure:
            def on_share(number: int) -> Structure:
                own = map_slices(
                    lambda slices: _own(slices, parts[number], program.size), cotangents
                )
                return vjp(*taped[number], sources, own)

            return self._reduce(program, parts, on_share)

        return self._reduce(program, parts, forward), pull

    def _parts(
        self, function: OnBatch, batch: Structure
    ) -> tuple["OnShards | None", dict[int, Shard]]:
        """The function on shards, and this worker's.

        Returns:
            `OnShards`; a mapping from the numbers of replicas to `Shard`s, which is
            empty where the batch has no examples.
        """
        shards = Shards(batch, self._strategy.num_replicas_in_sync)
        if shards.size is None:
            return None, {}
        program = OnShards(function, batch, shards, self._compiled)
        parts = {}
        for number, _ in local_replicas(self._strategy):
            parts[number] = shards.part(number)
            program.trace(parts[number])
        program.check_readings(parts[number])
        return program, parts

    def _reduce(
        self,
        program: "OnShards",
        parts: dict[int, Shard],
        make: Callable[[int], Structure],
    ) -> Structure:
        """The weighted mean of what each replica makes of its shard.

        One vector for each dtype travels between devices.

        Args:
            program: `OnShards`.
            parts: Mapping from numbers of replicas to `Shard`s.
            make: Callable(number) -> structure of tensors, `None` and `Slices`.
        """
        made = []

        def on_replica() -> TwoLists:
            context = tf.distribute.get_replica_context()
            number = int(tf.get_static_value(context.replica_id_in_sync_group))
            shard, rows = parts[number], []

            def place(slices: Slices) -> Slices:
                placed = _placed(slices, shard, program.size)
                rows.append(placed.rows)
                return placed._replace(rows=None)

            structure = map_slices(place, make(number))
            made.append(structure)
            vectors, others = pack(structure, shard.weight)
            return [*rows, *vectors], others

        sums, others = totals(self._strategy, on_replica)
        count = len(_rows(made[0]))
        rows = iter(sums[:count])
        return map_slices(
            lambda slices: slices._replace(rows=next(rows)),
            unpack(made[0], sums[count:], others),
        )


class OnShards:
    """A function of a batch as one program for each size of a shard.

    Not one for each replica: it is traced on no device and runs on the caller's.

    Args:
        function: Callable(batch) -> structure of tensors and `None`.
        batch: A structure of tensors.
        shards: The batch's `Shards`.
        compiled: Whether XLA compiles it.

    Attributes:
        size: As that of the `Shards`.
    """

    def __init__(
        self,
        function: OnBatch,
        batch: Structure,
        shards: Shards,
        compiled: bool = False,
    ) -> None:
        self._function = function
        self._batch = batch
        self.size = shards.size
        self._compiled = compiled
        self._programs: dict[tuple, ConcreteFunction] = {}

    def __call__(self, shard: Shard) -> Structure:
        """The function's value on a `Shard`."""
        self.trace(shard)
        return self._programs[_shapes(shard)](shard.tensors, shard.first)

    def trace(self, shard: Shard) -> None:
        """Makes the program for a `Shard`, where there is no replica context.

        Where a replica is known, Keras' losses would divide by the number of them.
        """
        if _shapes(shard) in self._programs:
            return
        with tf.device(None), _synchronization_refused():
            with recorded_draws() as drawn:
                program = self._trace(shard)
            if drawn:
                # Not within the trace of a shard: Keras' calls of a model do not nest.
                with recorded_draws() as whole:
                    once_traced(self._function).get_concrete_function(self._batch)
                program = self._trace(shard, whole)
        self._programs[_shapes(shard)] = program

    def check_readings(self, shard: Shard) -> None:
        """Refuses `Slices` of which shards have no parts of those of the batch.

        Args:
            shard: A `Shard` for which the program was traced.
        """
        counts = _counts(self._programs[_shapes(shard)])
        if not counts:
            return
        with tf.device(None):
            whole = once_traced(self._function).get_concrete_function(self._batch)
        for count, in_all in zip(counts, _counts(whole), strict=True):
            known = None not in (count, in_all) and isinstance(self.size, int)
            require(
                known and count * self.size == in_all * leading(shard.tensors),
                "On several replicas rows of a variable (Embedding, tf.gather) count "
                "under a Keras optimizer as on one only if each example reads so many "
                "rows, and all batches are of one size. Alternatives: one replica, or "
                "what sees sums: far.Adam and the like, Keras' SGD without clipping.",
                rows_of_a_batch=in_all,
                rows_of_a_share=count,
                examples_of_a_batch=self.size,
                examples_of_a_shard=leading(shard.tensors),
            )

    def _trace(
        self, shard: Shard, whole: list[list[int | None]] | None = None
    ) -> ConcreteFunction:
        """Args: shard: A `Shard`; whole: The shapes of the draws of the batch."""

        def on_share(tensors: list[tf.Tensor], first: tf.Tensor) -> Structure:
            rows = contextlib.nullcontext()
            if whole:
                rows = sharded_draws(leading(tensors), first, self.size, whole)
            with rows:
                return self._function(tf.nest.pack_sequence_as(self._batch, tensors))

        compiler = once_traced(on_share, jit_compile=self._compiled)
        return compiler.get_concrete_function(shard.tensors, shard.first)


def _counts(program: ConcreteFunction) -> list[Size]:
    """Of each `Slices` that a program returns, how many they are."""
    return [rows.shape[0] for rows in _rows(program.structured_outputs)]


def _rows(structure: Structure) -> list[tf.Tensor]:
    found = []
    map_slices(lambda slices: found.append(slices.rows), structure)
    return found


def _placed(slices: Slices, shard: Shard, size: Size) -> Slices:
    """A shard's `Slices` among those of the batch, zeros in the place of others."""
    first, examples = tf.get_static_value(shard.first), leading(shard.tensors)
    each = slices.values.shape[0] // examples
    place = [each * first, each * (size - first - examples)]
    others = [[0, 0]] * (slices.values.shape.rank - 1)
    # Also where it overlaps with another's, as it has no weight.
    counts = tf.cast(shard.weight > 0, tf.int64)
    return Slices(
        tf.pad(slices.values, [place, *others]),
        tf.pad(tf.cast(slices.rows, tf.int64) * counts, [place]),  # pyright: ignore[reportArgumentType, reportCallIssue]
    )


def _own(slices: Slices, shard: Shard, size: Size) -> Slices:
    """A shard's part of the values of a batch; undoes `_placed`."""
    if slices.values is None:
        return slices
    each = slices.values.shape[0] // size
    first = each * tf.get_static_value(shard.first)
    values = slices.values[first : first + each * leading(shard.tensors)]
    return slices._replace(values=values)


def _shapes(shard: Shard) -> tuple[tuple[int | None, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in shard.tensors)


@contextlib.contextmanager
def _synchronization_refused() -> Iterator[None]:
    """Within, to ask for all replicas' values, as of one there is nothing to ask."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise ValueError(
            "An objective synchronizes replicas, as "
            "BatchNormalization(synchronized=True) does: that cannot be differentiated "
            "twice within a loop. Without, each replica normalizes its shard of the "
            "batch by itself."
        )

    context = tf.distribute.get_replica_context()
    context.all_reduce = refuse
    try:
        yield
    finally:
        del context.all_reduce
