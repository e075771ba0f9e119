"""What TensorFlow and Keras raise, in the words of the problem.

They name an operation of a graph, or of a derivative of it, that nobody wrote. What one
needs to know is the part of the problem that it belongs to, the line that made it, and
what to write instead. The first two are told by the traceback of the error, and by that
which TensorFlow keeps of each operation; the last by a table.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

from far_ho_tf.checks import essence
from far_ho_tf.graphs.frames import (
    PACKAGE,
    Frame,
    frame_of,
    frames_in,
    frames_of,
    line_of,
    users_line,
    words,
)

_F = TypeVar("_F", bound=Callable[..., Any])

# What is nobody's mistake in a problem, such as a machine that is too small.
NOT_EXPLAINED = (
    *(Warning, MemoryError, tf.errors.ResourceExhaustedError),
    *(tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.UnavailableError),
)

# Characters of what an error says that are told, and those that the names of an
# operation and of its derivative's have in common.
_LONGEST, _ALIKE = 1_000, 5

_AUTOGRAPH = (
    "what branches in Python on the value of a tensor, loops over it or asks for its "
    "len needs tf.cond, tf.where or tf.while_loop; or AutoGraph, which rewrites it "
    "where the objective (a def, no lambda), and nothing that it calls, is decorated "
    "with @tf.function. A number of a Keras layer or loss (label_smoothing, a strength "
    "of noise) that was computed of a hyperparameter does not take this: give the "
    "Hyperparameter itself, with a constraint"
)
# Pairs of a pattern, for the types of the operation and of what it was derived from and
# for what is said, and a remedy. The first that fits counts.
_REMEDIES = (
    (
        "as a Python .bool|Iterating over a symbolic|len is not well defined",
        _AUTOGRAPH,
    ),
    (
        "has no attribute 'handle'",
        "differentiate in values, which a tape must watch: values = [w.value for w in "
        "model.trainable_variables]; tape.watch(values); tape.gradient(loss, values)",
    ),
    (
        "type string|DataType string|Cast string",
        "make integer codes of strings before they are given, by "
        "keras.layers.StringLookup or np.unique(labels, return_inverse=True)",
    ),
    (
        "float16 that does not match type float(32|64)|"
        "float(32|64) that does not match type b?float16|(half|bfloat16) tensor",
        "cast the output of a model with mixed precision, tf.cast(model(x), "
        "tf.float32), or data of 16 bits",
    ),
    (
        "has type \\w+ that does not match type|expected to be an? "
        "(float|double|half|bfloat16) tensor",
        "cast the data before they are given, such as x.astype('float32'), or by "
        "tf.cast in the objective",
    ),
    (
        "symbolic tf.Tensor.*numpy array|'SymbolicTensor'",
        "NumPy and Python's own float cannot compute with what depends on variables "
        "and hyperparameters: use functions of tf or keras.ops, and "
        "tf.convert_to_tensor for an array on the left of a variable",
    ),
    ("^Igammac?(GradA)?\\b", "keep a fixed; x may depend on what is trained or tuned"),
    (
        "^SparseDenseCwise|^SparseSoftmax",
        "compute with the values of the sparse tensor by tf.gather and "
        "tf.math.segment_*, or on a dense one",
    ),
    (
        "^StatelessShuffle|^RandomShuffle",
        "shuffle indices, and gather: tf.gather(x, "
        "tf.random.experimental.stateless_shuffle(tf.range(n), seed))",
    ),
    ("fast=False", "give fast=True"),
    (
        "not invertible",
        "start from matrices that are not singular, or add a multiple of tf.eye",
    ),
    (
        "^AdjustContrast",
        "write (x - mean) * factor + mean, with tf.reduce_mean over height and width",
    ),
    ("Bincount", "use tf.math.unsorted_segment_sum(weights, indices, num_segments)"),
    (
        "^CropAndResize",
        "interpolate by tf.einsum with weight matrices; or, where the boxes depend on "
        "hyperparameters alone, use far.ReverseHG()",
    ),
    (
        "EXPLICIT",
        "pad by tf.pad, with constant_values=x.dtype.min, and pool with "
        "padding='VALID'",
    ),
    (
        "label value of",
        "labels are out of range: give the last layer a unit for each class, and "
        "labels from 0 to one less",
    ),
    (
        "tf2xla|XlaMustCompile",
        "leave `jit_compile` at 'auto', which runs as a graph what XLA cannot compile",
    ),
)
_NO_DERIVATIVE = (
    "write it with operations that can be differentiated twice (in an outer objective "
    "once), or keep what it reads fixed; in reverse mode what reads hyperparameters "
    "alone may do with one derivative less"
)

# What Keras' models do without derivatives.
_LOOPS = ("evaluate", "fit", "predict", "predict_on_batch", "test_on_batch")
_CALL = "model.{} has no derivative: call the model, as in loss(y, model(x))"

# Where what is meant for a reader ends: at a graph, or at a traceback.
_DUMPS = r"Previous definition: |Traceback \(most recent call last\)"

_parts: dict[tuple[str, str], str] = {}  # Names by the file and the name of functions.


class Failure(NamedTuple):
    """What is known of an error.

    Attributes:
        part: The name of the part of a problem that it came from; `None` if unknown.
        operations: List of the types of what was differentiated: the operation, and the
            one whose derivative it is a part of, where there is one.
        line: The user's `Frame`, or `None`.
        message: What was said.
        remedy: What to do; an empty string if unknown.
    """

    part: str | None
    operations: list[str]
    line: Frame | None
    message: str
    remedy: str

    @property
    def where(self) -> str:
        """The user's line, as words that follow on others; an empty string."""
        return words(self.line)

    def __str__(self) -> str:
        remedy = f". Remedy: {self.remedy}" if self.remedy else ""
        return f"{self.message}{self.where}{remedy}"


def part_of(name: str) -> Callable[[_F], _F]:
    """Decorates what makes the operations of a part of a problem."""

    def note(function: _F) -> _F:
        code = function.__code__
        _parts[code.co_filename, code.co_name] = name
        return function

    return note


@contextlib.contextmanager
def explained(labels: Mapping[str, str]) -> Iterator[None]:
    """Within, what others than this package raise comes out as one `ValueError`.

    Args:
        labels: Mapping from the parts of a problem to what messages call them.
    """
    filtering = tf.debugging.is_traceback_filtering_enabled()
    tf.debugging.disable_traceback_filtering()  # It would cut out what is asked for.
    try:
        yield
    except NOT_EXPLAINED:
        raise
    except Exception as error:
        if _is_own(error):
            raise
        failure = told(error)
        label = labels.get(failure.part or "", "A training step")
        verb = "fails"
        if failure.operations:
            verb = f"cannot be differentiated at {failure.operations[0]}"
        if failure.operations[1:]:
            verb += f", a part of the derivative of {failure.operations[1]}"
        remedy = f" Remedy: {failure.remedy}." if failure.remedy else ""
        raise ValueError(
            f"{label} {verb}{failure.where}.{remedy} Received: "
            f"{type(error).__name__}: {failure.message}"
        ) from error
    finally:
        if filtering:
            tf.debugging.enable_traceback_filtering()


def told(error: BaseException) -> Failure:
    """The `Failure` that an error tells of."""
    calls = list(_calls(error))
    operations, kind = [], None
    for call in calls:
        found = _differentiated(call)
        if found is not None:
            kind, operations = found
    chains = [[frame_of(call) for call in calls]]
    chains += [frames_of(operation) for operation in operations]
    chains.append(frames_in(str(error)))
    # The error's own frames end in the user's code where that is traced; an operation's
    # do where its derivative is taken; and those in words where a graph runs.
    lines = [users_line(chain) for chain in chains]
    line = next((line for line in lines if line), None)
    parts = [_part(chain) for chain in [*chains[1:], chains[0]]]
    types = [kind] if kind else []
    types += [one.type for one in operations[1:2] if one.type != kind]
    message = _said(error)
    loops = [name for name in map(_loop, calls) if name]
    return Failure(
        next((part for part in parts if part), None),
        types,
        line,
        message,
        _CALL.format(loops[0]) if loops else _remedy(types, message),
    )


def _is_own(error: BaseException) -> bool:
    """Whether the package itself raised it."""
    *_, last = _calls(error)
    return last.tb_frame.f_code.co_filename.startswith(PACKAGE)


def _calls(error: BaseException) -> Iterator[TracebackType]:
    """The entries of an error's traceback."""
    entry = error.__traceback__
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _loop(call: TracebackType) -> str | None:
    """The method of a Keras model that is called, if it runs a loop of Keras."""
    code, known = call.tb_frame.f_code, call.tb_frame.f_locals
    # Keras cuts its own frames out, but for that which does so.
    method = known.get("fn") if code.co_name == "error_handler" else None
    name = getattr(method, "__qualname__", "").rpartition(".")[2]
    return name if name in _LOOPS else None


def _differentiated(
    call: TracebackType,
) -> tuple[str | None, list[tf.Operation]] | None:
    """What TensorFlow differentiates in a call.

    Returns:
        The operation's type, and a list of it, as far as it is known, and of what it is
        a part of the derivative of; `None` for another call.
    """
    code, known = call.tb_frame.f_code, call.tb_frame.f_locals
    if code.co_name == "_gradient_function":  # Of a tape.
        kind, made = known.get("op_name"), _of_tape(known)
    elif code.co_name == "_GradientsHelper" and "op" in known:  # Of a loop or branch.
        kind, made = known["op"].type, [known["op"]]
    else:
        return None
    return kind, made + [one for operation in made for one in _derived_from(operation)]


def _of_tape(known: Mapping[str, Any]) -> list[tf.Operation]:
    """The operation that a tape differentiates, of which it forgets what it can."""
    kind = known.get("op_name")
    outputs, inputs, cotangents = (
        [one for one in known.get(name) or () if tf.is_symbolic_tensor(one)]
        for name in ("outputs", "inputs", "out_grads")
    )
    made = [one.op for one in outputs]
    made += [one for tensor in inputs for one in tensor.consumers() if one.type == kind]
    if not made and cotangents:
        others = cotangents[0].graph.get_operations()
        made = [one for one in others if one.type == kind]
        made = made if len(made) == 1 else []
    return made[:1]


def _derived_from(operation: tf.Operation) -> list[tf.Operation]:
    """What an operation that is not the user's is a part of the derivative of.

    Told by what it reads, and the types' names.
    """
    if line_of(operation):
        return []
    near = [
        other
        for tensor in operation.inputs
        for other in [tensor.op, *tensor.consumers()]
        if line_of(other)
    ]
    closest = max(near, key=lambda other: _likeness(operation, other), default=None)
    if closest is None or _likeness(operation, closest) < _ALIKE:
        return []
    return [closest]


def _likeness(one: tf.Operation, other: tf.Operation) -> int:
    """How many characters two operations' types begin with in common."""
    pairs = zip(one.type, other.type, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _part(frames: Sequence[Frame]) -> str | None:
    """The name of the part that the innermost of the known functions makes."""
    names = [_parts.get((frame.file, frame.function)) for frame in frames]
    return next((name for name in reversed(names) if name), None)


def _said(error: BaseException) -> str:
    """What an error says, in short."""
    text = f"no key {error}" if isinstance(error, KeyError) else str(error)
    text = re.sub("\x1b\\[[0-9;]*m", "", text)
    if "Graph execution error" in text or "Detected at node" in text:
        text = essence(error)
    text = re.split(_DUMPS, text)[0]
    text = re.sub(r"\{\{node (\S+)\}\} = ", r"\1 = ", text)  # A name in a sentence.
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]( name:)?", "", text)
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _remedy(types: Sequence[str], message: str) -> str:
    for pattern, remedy in _REMEDIES:
        if any(re.search(pattern, text) for text in [*types, message]):
            return remedy
    return _NO_DERIVATIVE if types else ""
