"""Replayable data: any step's batch can be computed again at any time.

The backward pass visits the steps in reverse order and must see, at each, the
batch that the forward pass saw.
"""

import abc
import functools
import zlib

import tensorflow as tf

from far_ho_tf.checks import CALLABLE_ERRORS, essence
from far_ho_tf.data.batches import Batches, refuse_variables
from far_ho_tf.data.readings import Readings


def as_source(data, name, cycle=False):
    """Wraps any kind of data that `BilevelProblem` takes as a `Source`.

    Args:
        data: `None`, a structure of tensors, `Batches`, a `tf.data.Dataset`
            or a callable of the step.
        name: For messages: "inner_data" or "outer_data".
        cycle: Whether a finite `tf.data.Dataset` starts over at its end.

    Returns:
        A `Source`.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Batches):
        return _BatchesSource(data)
    if isinstance(data, tf.data.Dataset):
        return _DatasetSource(data.repeat() if cycle else data, name)
    if callable(data):
        return _CallableSource(data, name)
    return _ConstantSource(data, name)


class Source(abc.ABC):
    """What a compiled run reads its batches from.

    Attributes:
        is_empty: Whether the objective is called without a batch.
    """

    is_empty = False

    @abc.abstractmethod
    def prepare(self, first_step, num_steps):
        """Runs before the compiled graph.

        Args:
            first_step, num_steps: Python integers, the steps to come.

        Returns:
            A structure of tensors that is passed to the graph.

        Raises:
            ValueError: If the data end before the last of these steps.
        """

    def sample(self):
        """What `prepare` returns for one step, where only its shapes matter."""
        return self.prepare(0, 1)

    @abc.abstractmethod
    def batch(self, prepared, step):
        """Makes the batch of a step inside the graph, from an int32 scalar."""

    def check_last(self, last):
        """Says so if the data end before a step, where that can be told."""
        del last

    def reader(self):
        """A callable(step) that makes one batch after another inside a graph."""
        prepared = self.sample()
        return lambda step: self.batch(prepared, step)

    def has_fixed_shapes(self, prepared):
        """Whether the batches' shapes are known before the steps."""
        return all(
            tensor.shape.is_fully_defined()
            for tensor in tf.nest.flatten(self._traced(prepared).structured_outputs)
            if tensor is not None
        )

    def captured(self, prepared):
        """The handles of variables and other tensors that batches are made from."""
        return self._traced(prepared).captured_inputs

    def position(self):
        """What `replay` needs to go on from here in another process.

        Returns:
            A structure of lists and numbers; `None` where a batch is a function of
            its step alone.
        """
        return None

    def replay(self, position):
        """Reads again what was read up to a `position`, so that all that follows is
        as it was.

        Args:
            position: What `position` returned.

        Raises:
            ValueError: If what is read is not what was read.
        """
        del position

    def shuffles(self):
        """The `tf.data.Dataset`s in it that draw an order.

        Returns:
            List of pairs of a dataset and whether it has a seed.
        """
        return []

    def _traced(self, prepared):
        """`batch` as a concrete function, traced once for each structure."""
        return self._function_of_batch.get_concrete_function(
            prepared, tf.TensorSpec([], tf.int32)
        )

    @functools.cached_property
    def _function_of_batch(self):
        return tf.function(self.batch, autograph=False)


class Placeholder(Source):
    """Batches that come from elsewhere: known here by their shapes only.

    Args:
        batch: A batch or its specs: a structure of tensors and `None`.

    Attributes:
        specs: The batch's structure of `tf.TensorSpec`s and `None`.
    """

    def __init__(self, batch):
        self.specs = tf.nest.map_structure(_spec, batch)

    def prepare(self, first_step, num_steps):
        del first_step, num_steps
        return self.specs

    def batch(self, prepared, step):
        del step
        return prepared

    def widened(self, batch):
        """A `Placeholder` for these batches and for one more.

        A batch of another structure or dtype takes the place of these.
        """
        other = Placeholder(batch)
        try:
            specs = tf.nest.map_structure(_common, self.specs, other.specs)
        except (TypeError, ValueError):
            return other
        return Placeholder(specs)

    def zeros(self):
        """A batch of zeros, where all shapes are known."""
        return tf.nest.map_structure(
            lambda spec: None if spec is None else tf.zeros(spec.shape, spec.dtype),
            self.specs,
        )


def _spec(tensor):
    if tensor is None or isinstance(tensor, tf.OptionalSpec):
        return None  # What Keras makes of an optional one.
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _common(spec, other):
    """The most specific spec of both."""
    if spec is None and other is None:
        return None
    common = spec.most_specific_common_supertype([other]) if spec and other else None
    if common is None:
        raise ValueError(f"{spec} and {other} have nothing in common.")
    return common


class _ConstantSource(Source):
    """One full batch, or none at all (`data=None`)."""

    def __init__(self, data, name):
        self.is_empty = data is None
        refuse_variables(f"`{name}`", data)
        try:
            self._tensors = (
                ()
                if data is None
                else tf.nest.map_structure(tf.convert_to_tensor, data)
            )
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`{name}` must be None, tensors, `Batches`, a "
                "`tf.data.Dataset` or a callable of the step. Received: "
                f"{type(data).__name__}"
            ) from error

    def prepare(self, first_step, num_steps):
        del first_step, num_steps
        return self._tensors

    def batch(self, prepared, step):
        del step
        return prepared


class _BatchesSource(Source):
    def __init__(self, batches):
        self._batches = batches

    def prepare(self, first_step, num_steps):
        del first_step, num_steps
        return self._batches.tensors

    def batch(self, prepared, step):
        return self._batches.gather(prepared, step)


class _CallableSource(Source):
    def __init__(self, function, name):
        self._function = function
        self._name = name
        self._checked = -1

    def prepare(self, first_step, num_steps):
        """Asks for the last batch: compiled code would not miss it.

        XLA clamps an index that is out of range instead of raising.
        """
        self.check_last(first_step + num_steps - 1)
        return ()

    def batch(self, prepared, step):
        del prepared
        try:
            batch = self._function(step)
            return tf.nest.map_structure(tf.convert_to_tensor, batch)
        except CALLABLE_ERRORS as error:
            raise ValueError(
                f"`{self._name}` must be a callable that makes a batch of tensors, by "
                "TensorFlow's operations, from the step, a scalar int32 tensor (index "
                f"lists and arrays by tf.gather). Received: {self._function!r}, which "
                f"fails with {error}"
            ) from error

    def check_last(self, last):
        if last <= self._checked:
            return
        try:  # In a graph, as later: run eagerly, it would fail in other ways.
            batch = self._traced(())((), tf.constant(last))
        except tf.errors.InvalidArgumentError as error:
            raise _ended(self._name, last, f"it fails with {essence(error)}") from error
        for tensor in tf.nest.flatten(batch):
            shape = tf.convert_to_tensor(tensor).shape
            if shape.rank and shape[0] == 0:
                raise _ended(
                    self._name, last, f"an empty batch, of shape {tuple(shape)}"
                )
        self._checked = last


class _DatasetSource(Source):
    """Elements of a `tf.data.Dataset`, taken once and kept for the replay.

    The steps' elements are stacked, padded where their first dimensions
    differ (a last, smaller batch), and cut to length again in the graph. Steps
    that follow on those before go on reading; others read from the start, in an
    order of their own where the dataset shuffles anew each time.
    """

    def __init__(self, dataset, name):
        self._dataset = dataset
        self._name = name
        self._chunks = None  # Of `num_steps` elements each, from `_next_step` on.
        self._next_step = self._num_steps = 0
        self._readings = Readings()
        self._first_row = []  # Of the last chunk.
        self._sample = None

    def prepare(self, first_step, num_steps):
        follows = 0 < first_step == self._next_step and num_steps == self._num_steps
        if self._chunks is None or not follows:
            self._begin(first_step, num_steps)
        prepared = self._next(first_step, num_steps)
        if self._sample is None and num_steps == 1:
            self._sample = prepared
        return prepared

    def _begin(self, first_step, num_steps):
        self._chunks = iter(self._stacked(first_step, num_steps))
        self._readings.begin(first_step, num_steps)

    def _next(self, first_step, num_steps):
        self._next_step, self._num_steps = first_step + num_steps, num_steps
        self._readings.take()
        try:
            stacked = next(self._chunks, None)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"`{self._name}` must have elements that differ in their first "
                f"dimension at most. Received: {self._dataset.element_spec} ({error})"
            ) from error
        found = 0 if stacked is None else int(tf.nest.flatten(stacked)[0].shape[0])
        if found < num_steps:
            raise _ended(
                self._name,
                first_step + num_steps - 1,
                f"a `tf.data.Dataset` with {found} elements from step {first_step} "
                "on (`.repeat()` makes it endless)",
            )
        tensors, lengths = stacked
        self._first_row = [tensor[0] for tensor in tf.nest.flatten(tensors)]
        lengths = tf.nest.map_structure(_none_if_equal, lengths)
        return tensors, lengths, tf.constant(first_step, tf.int32)

    def sample(self):
        """The first that was read, so that no order is drawn for it."""
        if self._sample is None:
            self._sample = _DatasetSource(self._dataset, self._name).prepare(0, 1)
        return self._sample

    def position(self):
        return [self._readings.record(), self._checksum()]

    def replay(self, position):
        """Iterators that are done with are begun again too: each draws an order."""
        record, checksum = position
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
        if self._checksum() != checksum:
            raise ValueError(
                f"`{self._name}` must give the elements that it gave in the run that "
                "is to go on: a dataset that shuffles needs a seed, or a call of "
                "`keras.utils.set_random_seed` before it is made. Received others, "
                f"from {self._dataset}"
            )

    def _checksum(self):
        checksum = 0
        for tensor in self._first_row:
            checksum = zlib.crc32(tf.io.serialize_tensor(tensor).numpy(), checksum)
        return checksum

    def shuffles(self):
        return [
            (dataset, bool(int(dataset._seed) or int(dataset._seed2)))
            for dataset in self._datasets()
            if hasattr(dataset, "_reshuffle_each_iteration")
        ]

    def captured(self, prepared):
        del prepared
        return [
            handle
            for dataset in self._datasets()  # What their own functions capture.
            for wrapper in dataset._functions()
            for handle in wrapper.function.captured_inputs
        ]

    def _datasets(self):
        """The dataset and all that it is made from."""
        datasets = [self._dataset]
        while datasets:
            dataset = datasets.pop()
            datasets += dataset._inputs()
            yield dataset

    def reader(self):
        """Its elements in their order, whatever the step."""
        iterator = iter(self._dataset)
        return lambda step: iterator.get_next()

    def _stacked(self, first_step, num_steps):
        elements = self._dataset.skip(first_step).map(_with_lengths)
        specs = tf.nest.flatten(self._dataset.element_spec)
        if all(spec.shape.rank is not None and _tail(spec) for spec in specs):
            return elements.padded_batch(num_steps)
        return elements.batch(num_steps)

    def batch(self, prepared, step):
        tensors, lengths, first_step = prepared
        row = step - first_step

        def element(tensor, length):
            tensor = tf.gather(tensor, row)
            return tensor if length is None else tensor[: tf.gather(length, row)]

        flat = [
            element(tensor, length)
            for tensor, length in zip(
                tf.nest.flatten(tensors), tf.nest.flatten(lengths), strict=True
            )
        ]
        return tf.nest.pack_sequence_as(self._dataset.element_spec, flat)


def _with_lengths(*element):
    element = element[0] if len(element) == 1 else element
    lengths = tf.nest.map_structure(
        lambda t: tf.shape(t)[0] if t.shape.rank else tf.constant(1), element
    )
    return element, lengths


def _tail(spec):
    return spec.shape.rank == 0 or spec.shape[1:].is_fully_defined()


def _none_if_equal(lengths):
    return None if len(set(lengths.numpy().tolist())) == 1 else lengths


def _ended(name, last, received):
    return ValueError(f"`{name}` ends before step {last}. Received: {received}")
