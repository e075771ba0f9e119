"""Elements of a `tf.data.Dataset`, which cannot be asked for by their number."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.data.batches import refuse_composites, refuse_empty
from far_ho_tf.data.readings import Readings
from far_ho_tf.data.source import Source, checksum, ended
from far_ho_tf.graphs.buffers import capacity
from far_ho_tf.graphs.failures import NOT_EXPLAINED, told
from far_ho_tf.graphs.fingerprint import fingerprint_of_dataset
from far_ho_tf.variables.numbers import scalar


class DatasetSource(Source):
    """Elements of a `tf.data.Dataset`, taken once and kept for the replay.

    The steps' elements are stacked, padded where their first dimensions
    differ (a last, smaller batch), and cut to length again in the graph; beyond the
    last step are zeros, so that few programs serve any number of steps. Steps that
    follow on those before go on reading; others read from the start, in an order of
    their own where the dataset shuffles anew each time.
    """

    def __init__(self, dataset: tf.data.Dataset, name: str) -> None:
        refuse_composites(f"The elements of `{name}`", dataset.element_spec)
        self._dataset = dataset
        self._name = name
        # Of `num_steps` elements each, from `_next_step` on.
        self._chunks: Iterator[Structure] = iter(())
        self._next_step = self._num_steps = 0
        self._readings = Readings()
        self._first_row: list[tf.Tensor] = []  # Of the last chunk.
        self._sample = None

    def prepare(self, first_step: int, num_steps: int) -> Structure:
        follows = 0 < first_step == self._next_step and num_steps == self._num_steps
        if not follows:
            self._begin(first_step, num_steps)
        prepared = self._next(first_step, num_steps)
        if self._sample is None and num_steps == 1:
            self._sample = prepared
        return prepared

    def _begin(self, first_step: int, num_steps: int) -> None:
        self._chunks = iter(self._stacked(first_step, num_steps))
        self._readings.begin(first_step, num_steps)

    def _next(self, first_step: int, num_steps: int) -> Structure:
        self._next_step, self._num_steps = first_step + num_steps, num_steps
        self._readings.take()
        try:
            stacked = next(self._chunks, None)
        except NOT_EXPLAINED:
            raise
        except tf.errors.OpError as error:
            self._check_elements(first_step + num_steps)
            raise ValueError(
                f"`{self._name}` must have elements that differ in their first "
                f"dimension at most. Received: {self._dataset.element_spec} "
                f"({told(error)})"
            ) from error
        found = 0 if stacked is None else int(tf.nest.flatten(stacked)[0].shape[0])
        if stacked is None or found < num_steps:
            raise ended(
                self._name,
                first_step + num_steps - 1,
                f"a `tf.data.Dataset` with {found} elements from step {first_step} "
                "on (`.repeat()` makes it endless)",
            )
        tensors, lengths = stacked
        refuse_empty(f"Each element of `{self._name}`", _longest(tensors))
        self._first_row = [tensor[0] for tensor in tf.nest.flatten(tensors)]
        lengths = tf.nest.map_structure(_none_if_equal, lengths)
        tensors, lengths = tf.nest.map_structure(_padded, (tensors, lengths))
        return tensors, lengths, scalar(first_step)

    def _check_elements(self, count: int) -> None:
        """Says which of the first elements the dataset itself fails to make."""
        step = 0
        try:
            for _ in self._untuned(self._dataset.take(count)):
                step += 1
        except tf.errors.OpError as error:
            raise ValueError(
                f"`{self._name}` fails in step {step}: its `tf.data.Dataset` cannot "
                f"make this element. Received: {told(error)}"
            ) from error

    def sample(self) -> Structure:
        """The first that was read, so that no order is drawn for it."""
        if self._sample is None:
            self._sample = DatasetSource(self._dataset, self._name).prepare(0, 1)
        return self._sample

    def position(self) -> list[Any]:
        return [self._readings.record(), checksum(self._first_row)]

    def replay(self, position: list[Any]) -> None:
        """Iterators that are done with are begun again too: each draws an order."""
        record, expected = position
        before = list(self._readings)
        readings = list(Readings(record))
        if readings[: len(before)] != before:
            raise ValueError(
                f"`{self._name}` must have been read as in the run that is to go on, "
                f"{readings}. Received a dataset that was read otherwise: {before}"
            )
        for first_step, num_steps, chunks in readings[len(before) :]:
            self._begin(first_step, num_steps)
            for chunk in range(chunks):
                self._next(first_step + chunk * num_steps, num_steps)
        if checksum(self._first_row) != expected:
            raise ValueError(
                f"`{self._name}` must give the elements that it gave in the run that "
                "is to go on: a dataset that shuffles needs a seed, or a call of "
                "`keras.utils.set_random_seed` before it is made. Received others, "
                f"from {self._dataset}"
            )

    def description(self) -> dict[str, Any]:
        if not all(seeded for _, seeded in self.shuffles()):
            return {}  # Another one each time.
        return {"fingerprint": fingerprint_of_dataset(self._dataset)}

    def shuffles(self) -> list[tuple[tf.data.Dataset, bool]]:
        return [
            (dataset, bool(int(dataset._seed) or int(dataset._seed2)))
            for dataset in self._datasets()
            if hasattr(dataset, "_reshuffle_each_iteration")
        ]

    def captured(self, prepared: Structure) -> list[tf.Tensor]:
        del prepared
        return [
            handle
            for dataset in self._datasets()  # What their own functions capture.
            for wrapper in dataset._functions()
            for handle in wrapper.function.captured_inputs
        ]

    def _datasets(self) -> Iterator[tf.data.Dataset]:
        """The dataset and all that it is made from."""
        datasets = [self._dataset]
        while datasets:
            dataset = datasets.pop()
            datasets += dataset._inputs()
            yield dataset

    def reader(self) -> Callable[[tf.Tensor], Structure]:
        """Its elements in their order, whatever the step."""
        iterator = iter(self._untuned(self._dataset))
        return lambda step: iterator.get_next()

    def _untuned(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Whose iterators have no thread that tunes them, where that costs nothing.

        The end of an iterator waits for that thread, which now and then misses that it
        is to stop, and sleeps on for as long as the iterator has lived, at most a
        minute. But without it TensorFlow does not spread a plain `map` over the cores.
        """
        plain = any(type(d).__name__ == "_MapDataset" for d in self._datasets())
        if plain or self._dataset.options().autotune.enabled is not None:
            return dataset
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.with_options(options)

    def _stacked(self, first_step: int, num_steps: int) -> tf.data.Dataset:
        elements = self._dataset.skip(first_step).map(_with_lengths)
        # What is read ahead draws the order of an epoch that may never come, sooner
        # or later than the next reader draws its own.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        elements = self._untuned(elements.with_options(options))
        specs = tf.nest.flatten(self._dataset.element_spec)
        if all(spec.shape.rank is not None and _tail(spec) for spec in specs):
            return elements.padded_batch(num_steps)
        return elements.batch(num_steps)

    def batch(
        self, prepared: Structure, step: tf.Tensor, episode: tf.Tensor | None = None
    ) -> Structure:
        del episode
        tensors, lengths, first_step = prepared
        row = step - first_step

        def element(tensor: tf.Tensor, length: tf.Tensor | None) -> tf.Tensor:
            tensor = tf.gather(tensor, row)
            return tensor if length is None else tensor[: tf.gather(length, row)]

        flat = [
            element(tensor, length)
            for tensor, length in zip(
                tf.nest.flatten(tensors), tf.nest.flatten(lengths), strict=True
            )
        ]
        return tf.nest.pack_sequence_as(self._dataset.element_spec, flat)


def _with_lengths(*element: Structure) -> tuple[Structure, Structure]:
    element = element[0] if len(element) == 1 else element
    lengths = tf.nest.map_structure(
        lambda t: tf.shape(t)[0] if t.shape.rank else tf.constant(1), element
    )
    return element, lengths


def _longest(rows: Structure) -> Structure:
    """The longest of the elements that are stacked, tensor by tensor."""
    return tf.nest.map_structure(lambda tensor: tensor[0], rows)


def _tail(spec: tf.TensorSpec) -> bool:
    return spec.shape.rank == 0 or spec.shape[1:].is_fully_defined()


def _padded(rows: tf.Tensor | None) -> tf.Tensor | None:
    """With as many rows as another number of steps may have, where they are several."""
    if rows is None or rows.shape[0] == 1:
        return rows
    count = len(rows)
    size = rows.shape[1:].num_elements() * rows.dtype.size
    more = capacity(count, size) - count
    return tf.pad(rows, [[0, more]] + [[0, 0]] * (rows.shape.rank - 1))


def _none_if_equal(lengths: tf.Tensor) -> tf.Tensor | None:
    return None if len(set(lengths.numpy().tolist())) == 1 else lengths
